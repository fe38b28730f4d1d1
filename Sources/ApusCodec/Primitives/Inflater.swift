import CZlib

/// A raw inflate stream: decompresses the messages of a `Deflater`.
@safe final class Inflater {
    private let stream: UnsafeMutablePointer<z_stream>
    /// The last message ended with a final block; a new stream must begin with the window of the
    /// old one.
    private var hasEnded = false

    /// Bytes of output per call of zlib: the most that is reserved before it is known to be needed.
    private static let maxRoom = 64 * 1024
    /// zlib's bit for "stopped at the end of a block" in `data_type`.
    private static let atBlockEnd: Int32 = 128

    /// - Parameter windowBits: 8 to 15, at least the peer's.
    init(windowBits: Int) {
        unsafe stream = .allocate(capacity: 1)
        unsafe stream.initialize(to: z_stream())
        let status = unsafe apus_inflate_init(stream, Int32(windowBits))
        precondition(status == Z_OK, "the configuration checks the parameters, and memory does not run out")
    }

    deinit {
        unsafe inflateEnd(stream)
        unsafe stream.deallocate()
    }

    /// Drops the context of earlier messages.
    func reset() {
        unsafe inflateReset(stream)
        hasEnded = false
    }

    /// Decompresses a piece of a message and appends the result.
    ///
    /// - Parameter maxBytes: the limit of `output`. One octet more is produced and removed, to
    ///   detect that there is more.
    /// - Throws: `ExtensionError.invalidData` or `.messageTooBig`.
    func decompress(_ payload: RawSpan, endsMessage: Bool, into output: inout [UInt8], maxBytes: Int) throws(ExtensionError) {
        try feed(payload, into: &output, maxBytes: maxBytes)
        guard endsMessage else { return }
        // After a final block, 00 00 FF FF completes nothing (RFC 7692 §7.2.3.5).
        if !hasEnded { try feed([0, 0, 0xFF, 0xFF].rawSpan, into: &output, maxBytes: maxBytes) }
        guard hasEnded || (unsafe stream.pointee.data_type) & Self.atBlockEnd != 0 else { throw Self.invalid }
    }

    private static var invalid: ExtensionError { .invalidData("the payload is not deflate data") }

    private func feed(_ payload: RawSpan, into output: inout [UInt8], maxBytes: Int) throws(ExtensionError) {
        var failure: ExtensionError?
        unsafe payload.withUnsafeBytes { input in
            var rest = unsafe input[...]
            while unsafe !rest.isEmpty, failure == nil {
                let step = unsafe rest.prefix(1 << 30)
                do throws(ExtensionError) {
                    let used = try unsafe inflateAll(UnsafeRawBufferPointer(rebasing: step), into: &output, maxBytes: maxBytes)
                    unsafe rest = rest.dropFirst(used)
                } catch {
                    failure = error
                }
            }
        }
        if let failure { throw failure }
    }

    /// Inflates until the input is consumed and all of its output is appended, or a final block
    /// ends.
    ///
    /// - Returns: the number of octets consumed.
    private func inflateAll(_ input: UnsafeRawBufferPointer, into output: inout [UInt8], maxBytes: Int) throws(ExtensionError) -> Int {
        if hasEnded { restart() }
        // One octet beyond the limit distinguishes "exactly the limit" from "more".
        let mostBytes = maxBytes == .max ? .max : maxBytes + 1
        unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
        unsafe stream.pointee.avail_in = UInt32(input.count)
        var room = max(256, input.count * 4)
        while true {
            room = min(room, Self.maxRoom, mostBytes - output.count)
            var status = Z_OK
            let isFull = unsafe output.appendFilling(room, maxBytes: mostBytes) { space in
                unsafe stream.pointee.next_out = space.baseAddress
                unsafe stream.pointee.avail_out = UInt32(space.count)
                status = unsafe inflate(stream, Z_SYNC_FLUSH)
                return unsafe space.count - Int(stream.pointee.avail_out)
            }
            guard output.count <= maxBytes else {
                output.removeLast(output.count - maxBytes)
                throw .messageTooBig(limit: maxBytes)
            }
            switch status {
            case Z_STREAM_END:
                hasEnded = true
                return unsafe input.count - Int(stream.pointee.avail_in)
            case Z_OK, Z_BUF_ERROR:
                if !isFull {
                    guard unsafe stream.pointee.avail_in == 0 else { throw Self.invalid }
                    return input.count
                }
                room *= 2
            default: throw Self.invalid
            }
        }
    }

    /// Begins a new stream and keeps the window, as the peer's compressor does. Nothing is copied:
    /// a peer may end a block every other octet.
    private func restart() {
        unsafe inflateResetKeep(stream)
        hasEnded = false
    }
}
