import CZlib

/// A raw deflate stream (RFC 1951) that ends each message at an octet, as RFC 7692 §7.2.1 wants it.
@safe final class Deflater {
    /// At a fixed address: zlib's state points back at it.
    private let stream: UnsafeMutablePointer<z_stream>

    /// - Parameters:
    ///   - windowBits: 8 to 15. zlib makes no raw stream with 8: then only runs of one byte are compressed, whose distance of 1 fits any window.
    ///   - level: 1 (fast) to 9 (small).
    ///   - memoryLevel: 1 to 9; the state takes 2^(windowBits+2) + 2^(memoryLevel+9) bytes.
    init(windowBits: Int, level: Int, memoryLevel: Int) {
        unsafe stream = .allocate(capacity: 1)
        unsafe stream.initialize(to: z_stream())
        let status = unsafe apus_deflate_init(
            stream, Int32(level), Int32(max(9, windowBits)), Int32(memoryLevel), windowBits < 9 ? Z_RLE : Z_DEFAULT_STRATEGY)
        precondition(status == Z_OK, "parameters are checked by the configuration, and memory does not run out")
    }

    deinit {
        unsafe deflateEnd(stream)
        unsafe stream.deallocate()
    }

    /// Forgets what was compressed before.
    func reset() { unsafe deflateReset(stream) }

    /// Compresses a piece of a message and appends the result, flushed. At the end of a message the last four octets, 00 00 FF FF, are left
    /// out, as they always are the same.
    func compress(_ payload: RawSpan, endsMessage: Bool, into output: inout [UInt8]) {
        let start = output.count
        unsafe payload.withUnsafeBytes { input in
            // zlib counts in 32 bits.
            var rest = unsafe input[...]
            repeat {
                let step = unsafe rest.prefix(1 << 30)
                unsafe rest = rest.dropFirst(step.count)
                unsafe feed(UnsafeRawBufferPointer(rebasing: step), flush: rest.isEmpty ? Z_SYNC_FLUSH : Z_NO_FLUSH, into: &output)
            } while unsafe !rest.isEmpty
        }
        guard endsMessage else { return }
        if output.count > start { output.removeLast(4) }
        // Nothing to say, and said before: an empty stored block less its last four octets is 00 (§7.2.3.6).
        if output.count == start { output.append(0) }
    }

    private func feed(_ input: UnsafeRawBufferPointer, flush: Int32, into output: inout [UInt8]) {
        unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
        unsafe stream.pointee.avail_in = UInt32(input.count)
        // Half of the input and a block's frame is what text needs; more is added as it turns out.
        var room = max(64, input.count / 2 + 32)
        while true {
            let isFull = unsafe output.appendFromC(room) { space in
                unsafe stream.pointee.next_out = space.baseAddress
                unsafe stream.pointee.avail_out = UInt32(space.count)
                // Z_BUF_ERROR says that there was nothing to do, which is fine.
                _ = unsafe deflate(stream, flush)
                return unsafe space.count - Int(stream.pointee.avail_out)
            }
            if !isFull { return }
            room = min(max(room, 512) * 2, 1 << 20)
        }
    }
}

extension [UInt8] {
    /// Lets a C function fill at most `room` octets behind the last; `body` gives how many it filled. Says whether all were.
    ///
    /// - Parameter maxBytes: the array will not be needed larger than this, and so is not made larger.
    mutating func appendFromC(_ room: Int, maxBytes: Int = .max, _ body: (UnsafeMutableBufferPointer<UInt8>) -> Int) -> Bool {
        reserve(growingTo: count + room, maxBytes: maxBytes)
        var filled = 0
        append(addingCapacity: room) { span in
            // SAFETY: `body` is a C function that fills the octets it counts, from the first on.
            unsafe span.withUnsafeMutableBufferPointer { buffer, initialized in
                filled = unsafe body(UnsafeMutableBufferPointer(rebasing: buffer[..<room]))
                initialized = filled
            }
        }
        return filled == room
    }
}
