import CZlib

/// A raw deflate stream (RFC 1951) that ends each message at an octet boundary (RFC 7692 §7.2.1).
@safe final class Deflater {
    /// At a fixed address: zlib's state contains a pointer to it.
    private let stream: UnsafeMutablePointer<z_stream>

    /// - Parameters:
    ///   - windowBits: 8 to 15. zlib has no raw stream with 8: then only runs of one byte are
    ///     compressed, whose distance of 1 fits any window.
    ///   - level: 1 (fast) to 9 (small).
    ///   - memoryLevel: 1 to 9. The state takes 2^(windowBits+2) + 2^(memoryLevel+9) bytes.
    init(windowBits: Int, level: Int, memoryLevel: Int) {
        unsafe stream = .allocate(capacity: 1)
        unsafe stream.initialize(to: z_stream())
        let status = unsafe apus_deflate_init(
            stream, Int32(level), Int32(max(9, windowBits)), Int32(memoryLevel), windowBits < 9 ? Z_RLE : Z_DEFAULT_STRATEGY)
        precondition(status == Z_OK, "the configuration checks the parameters, and memory does not run out")
    }

    deinit {
        unsafe deflateEnd(stream)
        unsafe stream.deallocate()
    }

    /// Drops the context of earlier messages.
    func reset() { unsafe deflateReset(stream) }

    /// Compresses a piece of a message and appends the result, flushed. At the end of a message the
    /// last four octets, always 00 00 FF FF, are left out.
    func compress(_ payload: RawSpan, endsMessage: Bool, into output: inout [UInt8]) {
        let start = output.count
        unsafe payload.withUnsafeBytes { input in
            // zlib's counts have 32 bits.
            var rest = unsafe input[...]
            repeat {
                let step = unsafe rest.prefix(1 << 30)
                unsafe rest = rest.dropFirst(step.count)
                unsafe feed(UnsafeRawBufferPointer(rebasing: step), flush: rest.isEmpty ? Z_SYNC_FLUSH : Z_NO_FLUSH, into: &output)
            } while unsafe !rest.isEmpty
        }
        guard endsMessage else { return }
        if output.count > start { output.removeLast(4) }
        // The message was empty, and zlib does not flush twice: an empty stored block without its
        // last four octets is 00 (§7.2.3.6).
        if output.count == start { output.append(0) }
    }

    private func feed(_ input: UnsafeRawBufferPointer, flush: Int32, into output: inout [UInt8]) {
        unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
        unsafe stream.pointee.avail_in = UInt32(input.count)
        // Text compresses to about half its size; the buffer grows if that is not enough.
        var room = max(64, input.count / 2 + 32)
        while true {
            let isFull = unsafe output.appendFilling(room) { space in
                unsafe stream.pointee.next_out = space.baseAddress
                unsafe stream.pointee.avail_out = UInt32(space.count)
                // Z_BUF_ERROR means that there was nothing to do.
                _ = unsafe deflate(stream, flush)
                return unsafe space.count - Int(stream.pointee.avail_out)
            }
            if !isFull { return }
            room = min(max(room, 512) * 2, 1 << 20)
        }
    }
}

extension [UInt8] {
    /// Appends at most `room` octets that a C function writes; `body` returns their number.
    ///
    /// - Parameter maxBytes: the array's capacity is not raised above this.
    /// - Returns: whether all of the room was filled.
    mutating func appendFilling(_ room: Int, maxBytes: Int = .max, _ body: (UnsafeMutableBufferPointer<UInt8>) -> Int) -> Bool {
        reserve(growingTo: count + room, maxBytes: maxBytes)
        var filled = 0
        append(addingCapacity: room) { span in
            // SAFETY: `body` is a C function that writes the octets it counts, from the first one
            // on.
            unsafe span.withUnsafeMutableBufferPointer { buffer, initialized in
                filled = unsafe body(UnsafeMutableBufferPointer(rebasing: buffer[..<room]))
                initialized = filled
            }
        }
        return filled == room
    }
}
