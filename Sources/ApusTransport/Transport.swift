package import ApusPlatform
import Glibc

/// One connection's bytes: a socket and the queue in front of it. A class, so that using it needs no exclusivity check on its owner.
package final class Transport {
    /// The socket's number; -1 once closed.
    package var descriptor: Int32 { number }
    private var number: Int32
    private var queue = WriteQueue()
    /// What the queue holds, in bytes: looked at with each write, where an access to the queue would have to be checked.
    private var queuedBytes = 0

    package init(_ descriptor: consuming OwnedDescriptor) {
        number = descriptor.release()
    }

    deinit {
        if number >= 0 { _ = OwnedDescriptor(rawValue: number) }
    }

    /// Closes the socket and drops what is queued.
    package func close() {
        guard number >= 0 else { return }
        _ = OwnedDescriptor(rawValue: number)
        number = -1
        dropOutput()
    }

    /// Bytes that wait for the kernel.
    package var bufferedBytes: Int { queuedBytes }
    package var hasBufferedOutput: Bool { queuedBytes > 0 }

    /// Receives once; `.done(0)` is the end.
    @inline(__always)
    func receive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        try unsafe Socket.receive(number, into: buffer)
    }

    /// Writes `bytes` after what is queued; what the kernel does not take is copied into the queue.
    private func write(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        guard queuedBytes == 0 else { return unsafe enqueue(copying: bytes) }
        switch try unsafe Socket.send(number, bytes) {
        case .done(bytes.count): return
        case .done(let sent): unsafe enqueue(copying: UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        case .wouldBlock: unsafe enqueue(copying: bytes)
        }
    }

    /// Writes two runs of bytes in one call, such as a cork and a payload too large for it.
    private func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) throws(SystemError) {
        guard queuedBytes == 0 else {
            unsafe enqueue(copying: first)
            return unsafe enqueue(copying: second)
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
                if case .done(let count) = try unsafe Socket.send(number, pieces: raw.bindMemory(to: iovec.self)) {
                    sent = count
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        if sent < first.count { unsafe enqueue(copying: UnsafeRawBufferPointer(rebasing: first[sent...])) }
        let rest = max(0, sent - first.count)
        if rest < second.count { unsafe enqueue(copying: UnsafeRawBufferPointer(rebasing: second[rest...])) }
    }

    /// Queues a copy without a system call; `flush` sends it.
    package func enqueue(copying bytes: borrowing RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe enqueue(copying: $0) }
    }

    private func enqueue(copying bytes: UnsafeRawBufferPointer) {
        unsafe queue.append(copying: bytes)
        queuedBytes = queue.byteCount
    }

    package func write(_ buffer: OutputBuffer) throws(SystemError) { try unsafe write(buffer.bytes) }

    package func write(_ first: OutputBuffer, _ second: borrowing RawSpan) throws(SystemError) {
        var failure: SystemError?
        unsafe second.withUnsafeBytes { bytes in
            do throws(SystemError) { try unsafe write(first.bytes, bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    package func enqueue(_ buffer: OutputBuffer) { unsafe enqueue(copying: buffer.bytes) }

    /// Queues shared bytes without a system call; `flush` sends them.
    package func enqueue(_ chunk: ByteChunk) {
        queue.append(chunk)
        queuedBytes = queue.byteCount
    }

    /// Queues a part of a file; `flush` sends it.
    package func enqueue(_ file: SharedFile, offset: Int, count: Int) {
        queue.append(file, offset: offset, count: count)
        queuedBytes = queue.byteCount
    }

    /// Writes what is queued until the kernel takes no more.
    ///
    /// - Parameter scratch: an empty buffer in which small pieces may be put together.
    package func flush(gathering scratch: OutputBuffer? = nil) throws(SystemError) -> WriteQueue.Outcome {
        defer { queuedBytes = queue.byteCount }
        return try queue.write(to: number, gathering: scratch)
    }

    package func dropOutput() {
        queue.removeAll()
        queuedBytes = 0
    }

    /// Says that nothing more will be written.
    package func shutdownWrite() { try? Socket.shutdownWrite(descriptor) }
}
