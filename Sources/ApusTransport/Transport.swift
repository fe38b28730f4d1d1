package import ApusPlatform
import Glibc

/// One connection's bytes: a socket and the queue in front of it.
package struct Transport: ~Copyable {
    /// The socket's number; -1 once closed.
    package private(set) var descriptor: Int32
    private var queue = WriteQueue()

    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor.release()
    }

    deinit {
        if descriptor >= 0 { _ = OwnedDescriptor(rawValue: descriptor) }
    }

    /// Closes the socket and drops what is queued.
    package mutating func close() {
        guard descriptor >= 0 else { return }
        _ = OwnedDescriptor(rawValue: descriptor)
        descriptor = -1
        queue.removeAll()
    }

    /// Bytes that wait for the kernel.
    package var bufferedBytes: Int { queue.byteCount }
    package var hasBufferedOutput: Bool { !queue.isEmpty }

    /// Receives once; `.done(0)` is the end.
    @inline(__always)
    func receive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        try unsafe Socket.receive(descriptor, into: buffer)
    }

    /// Writes `bytes` after what is queued; what the kernel does not take is copied into the queue.
    private mutating func write(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        guard queue.isEmpty else { return unsafe queue.append(copying: bytes) }
        switch try unsafe Socket.send(descriptor, bytes) {
        case .done(bytes.count): return
        case .done(let sent): unsafe queue.append(copying: UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        case .wouldBlock: unsafe queue.append(copying: bytes)
        }
    }

    /// Writes two runs of bytes in one call, such as a cork and a payload too large for it.
    private mutating func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) throws(SystemError) {
        guard queue.isEmpty else {
            unsafe queue.append(copying: first)
            return unsafe queue.append(copying: second)
        }
        var sent = 0
        var vectors = unsafe (
            iovec(iov_base: UnsafeMutableRawPointer(mutating: first.baseAddress), iov_len: first.count),
            iovec(iov_base: UnsafeMutableRawPointer(mutating: second.baseAddress), iov_len: second.count)
        )
        var failure: SystemError?
        // SAFETY: both runs outlive the call; the tuple of two iovecs is laid out as an array of two.
        unsafe withUnsafeMutableBytes(of: &vectors) { raw in
            do throws(SystemError) {
                if case .done(let count) = try unsafe Socket.send(descriptor, pieces: raw.bindMemory(to: iovec.self)) {
                    sent = count
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        if sent < first.count { unsafe queue.append(copying: UnsafeRawBufferPointer(rebasing: first[sent...])) }
        let rest = max(0, sent - first.count)
        if rest < second.count { unsafe queue.append(copying: UnsafeRawBufferPointer(rebasing: second[rest...])) }
    }

    /// Queues a copy without a system call; `flush` sends it.
    package mutating func enqueue(copying bytes: borrowing RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe queue.append(copying: $0) }
    }

    package mutating func write(_ buffer: borrowing OutputBuffer) throws(SystemError) { try unsafe write(buffer.bytes) }

    package mutating func write(_ first: borrowing OutputBuffer, _ second: borrowing RawSpan) throws(SystemError) {
        var failure: SystemError?
        unsafe second.withUnsafeBytes { bytes in
            do throws(SystemError) { try unsafe write(first.bytes, bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    package mutating func enqueue(_ buffer: borrowing OutputBuffer) { unsafe queue.append(copying: buffer.bytes) }

    /// Queues shared bytes without a system call; `flush` sends them.
    package mutating func enqueue(_ chunk: ByteChunk) { queue.append(chunk) }

    /// Queues a part of a file; `flush` sends it.
    package mutating func enqueue(_ file: SharedFile, offset: Int, count: Int) {
        queue.append(file, offset: offset, count: count)
    }

    /// Writes what is queued until the kernel takes no more.
    package mutating func flush() throws(SystemError) -> WriteQueue.Outcome { try queue.write(to: descriptor) }

    package mutating func dropOutput() { queue.removeAll() }

    /// Says that nothing more will be written.
    package func shutdownWrite() { try? Socket.shutdownWrite(descriptor) }
}
