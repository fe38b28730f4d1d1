package import ApusPlatform
import Glibc

/// One connection's bytes: a socket and the queue in front of it. A class, so that using it needs no exclusivity check on its owner.
package final class Transport {
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
    package func close() {
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
    private func write(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        guard queue.isEmpty else { return unsafe queue.append(copying: bytes) }
        switch try unsafe Socket.send(descriptor, bytes) {
        case .done(bytes.count): return
        case .done(let sent): unsafe queue.append(copying: UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        case .wouldBlock: unsafe queue.append(copying: bytes)
        }
    }

    /// Writes two runs of bytes in one call, such as a cork and a payload too large for it.
    private func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) throws(SystemError) {
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
    package func enqueue(copying bytes: borrowing RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe queue.append(copying: $0) }
    }

    package func write(_ buffer: OutputBuffer) throws(SystemError) { try unsafe write(buffer.bytes) }

    package func write(_ first: OutputBuffer, _ second: borrowing RawSpan) throws(SystemError) {
        var failure: SystemError?
        unsafe second.withUnsafeBytes { bytes in
            do throws(SystemError) { try unsafe write(first.bytes, bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    package func enqueue(_ buffer: OutputBuffer) { unsafe queue.append(copying: buffer.bytes) }

    /// Queues shared bytes without a system call; `flush` sends them.
    package func enqueue(_ chunk: ByteChunk) { queue.append(chunk) }

    /// Queues a part of a file; `flush` sends it.
    package func enqueue(_ file: SharedFile, offset: Int, count: Int) {
        queue.append(file, offset: offset, count: count)
    }

    /// Writes what is queued until the kernel takes no more.
    package func flush() throws(SystemError) -> WriteQueue.Outcome { try queue.write(to: descriptor) }

    package func dropOutput() { queue.removeAll() }

    /// Says that nothing more will be written.
    package func shutdownWrite() { try? Socket.shutdownWrite(descriptor) }
}
