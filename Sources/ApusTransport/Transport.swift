package import ApusPlatform
import Glibc

/// One connection's bytes: a socket, its output queue, and TLS if used. A class, so that using it
/// needs no exclusivity check on its owner.
package final class Transport {
    /// The socket's descriptor; -1 once closed.
    package var descriptor: Int32 { number }
    private var number: Int32
    /// Whether output was discarded: the stream must then not end as if it were complete.
    private var hasDropped = false
    private var queue = WriteQueue()
    /// The queue's `byteCount`: a separate property, because every write reads it and an access to
    /// the queue would need an exclusivity check.
    private var queuedBytes = 0

    /// Bytes written in total, sent or still queued.
    package var writtenBytes: Int {
        @inline(never) get { written }
    }
    private var written = 0

    /// Nil without TLS.
    private var tls: TLSSession?

    /// The allocator of queued copies.
    private let buffers: BufferPool?

    /// - Parameter buffers: the worker's pool, which counts queued bytes; nil for none.
    package init(_ descriptor: consuming OwnedDescriptor, buffers: BufferPool? = nil) {
        number = descriptor.release()
        self.buffers = buffers
    }

    deinit {
        if number >= 0 { _ = OwnedDescriptor(rawValue: number) }
    }

    /// Closes the socket and discards queued output.
    package func close() {
        guard number >= 0 else { return }
        if let tls, !hasBufferedOutput, !hasDropped { tls.sendEnd(to: number) }
        _ = OwnedDescriptor(rawValue: number)
        number = -1
        dropOutput()
    }

    /// Bytes that the kernel has not taken.
    package var bufferedBytes: Int { queuedBytes + (tls?.sealedBytes ?? 0) }
    package var hasBufferedOutput: Bool { bufferedBytes > 0 }

    /// Receives once.
    ///
    /// - Returns: `.done(0)` at the end of input.
    @inline(__always)
    func receive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        guard let tls else { return try unsafe Socket.receive(number, into: buffer) }
        return try unsafe tls.receive(from: number, into: buffer)
    }

    /// Writes `bytes` behind queued output; what the kernel does not take is copied into the queue.
    private func write(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        guard queuedBytes == 0 else { return unsafe enqueue(copying: bytes) }
        if let tls { return try unsafe write(bytes, through: tls) }
        switch try unsafe Socket.send(number, bytes) {
        case .done(bytes.count): return
        case .done(let sent): unsafe enqueue(copying: UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        case .wouldBlock: unsafe enqueue(copying: bytes)
        }
    }

    /// Writes two buffers in one call, such as a header and a payload too large for the cork. What
    /// the kernel does not take of the second is queued by reference if it is the end of `chunk`,
    /// and copied otherwise.
    private func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer, _ chunk: ByteChunk?) throws(SystemError) {
        guard queuedBytes == 0 else {
            unsafe enqueue(copying: first)
            return unsafe enqueue(second, sharing: chunk)
        }
        guard tls == nil else {
            try unsafe write(first)
            return try unsafe write(second)
        }
        var sent = 0
        var vectors = unsafe (
            iovec(iov_base: UnsafeMutableRawPointer(mutating: first.baseAddress), iov_len: first.count),
            iovec(iov_base: UnsafeMutableRawPointer(mutating: second.baseAddress), iov_len: second.count)
        )
        var failure: SystemError?
        // SAFETY: both runs outlive the call; the tuple of two iovecs is laid out as an array of
        // two.
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
        if rest < second.count { unsafe enqueue(UnsafeRawBufferPointer(rebasing: second[rest...]), sharing: chunk) }
    }

    private func enqueue(_ bytes: UnsafeRawBufferPointer, sharing chunk: ByteChunk?) {
        guard let chunk, let offset = unsafe chunk.offset(ofEnd: bytes) else { return unsafe enqueue(copying: bytes) }
        queue.append(chunk, from: offset)
        queuedBytes += bytes.count
    }

    /// Queues a copy without a system call; `flush` sends it.
    package func enqueue(copying bytes: borrowing RawSpan) {
        written &+= bytes.byteCount
        unsafe bytes.withUnsafeBytes { unsafe enqueue(copying: $0) }
    }

    private func enqueue(copying bytes: UnsafeRawBufferPointer) {
        unsafe queue.append(copying: bytes, into: buffers)
        queuedBytes += bytes.count
    }

    package func write(_ buffer: OutputBuffer) throws(SystemError) {
        written &+= buffer.count
        try unsafe write(buffer.bytes)
    }

    /// Writes both buffers in one call.
    ///
    /// - Parameter chunk: the chunk that holds the second buffer, if any; its unsent rest is then
    ///   queued without a copy.
    package func write(_ first: OutputBuffer, _ second: borrowing RawSpan, in chunk: ByteChunk? = nil) throws(SystemError) {
        written &+= first.count + second.byteCount
        var failure: SystemError?
        unsafe second.withUnsafeBytes { bytes in
            do throws(SystemError) { try unsafe write(first.bytes, bytes, chunk) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    package func enqueue(_ buffer: OutputBuffer) {
        written &+= buffer.count
        unsafe enqueue(copying: buffer.bytes)
    }

    /// Queues shared bytes without a system call; `flush` sends them.
    package func enqueue(_ chunk: ByteChunk) {
        written &+= chunk.count
        queue.append(chunk)
        queuedBytes += chunk.count
    }

    /// Writes shared bytes at once if nothing is queued; the unsent rest is queued by reference.
    @inline(__always)
    package func write(_ chunk: ByteChunk) throws(SystemError) {
        guard queuedBytes == 0 else { return enqueue(chunk) }
        written &+= chunk.count
        if let tls { return try unsafe write(chunk.bytes, through: tls) }
        switch try unsafe Socket.send(number, chunk.bytes) {
        case .done(chunk.count): return
        case .done(let sent): queue.append(chunk, from: sent)
        case .wouldBlock: queue.append(chunk)
        }
        queuedBytes = queue.byteCount
    }

    /// Queues a part of a file; `flush` sends it.
    package func enqueue(_ file: SharedFile, offset: Int, count: Int) {
        written &+= count
        queue.append(file, offset: offset, count: count)
        queuedBytes += count
    }

    /// Writes queued output until the kernel takes no more.
    ///
    /// - Parameter scratch: an empty buffer in which small pieces may be coalesced.
    package func flush(gathering scratch: OutputBuffer? = nil) throws(SystemError) -> WriteQueue.Outcome {
        if let tls {
            defer { queuedBytes = queue.byteCount }
            return try tls.flush(&queue, to: number)
        }
        defer { queuedBytes = queue.byteCount }
        return try queue.write(to: number, gathering: scratch)
    }

    /// - Parameter isIncomplete: whether output that never reached this queue was lost too.
    package func dropOutput(isIncomplete: Bool = false) {
        if hasBufferedOutput || isIncomplete { hasDropped = true }
        queue.removeAll()
        tls?.dropOutput()
        queuedBytes = 0
    }

    /// Receives once and discards the bytes, without TLS, which therefore sends no response.
    func discard(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        try unsafe Socket.receive(number, into: buffer)
    }

    /// Shuts down the sending side.
    package func shutdownWrite() {
        if let tls { tls.sendEnd(to: number) }
        try? Socket.shutdownWrite(descriptor)
    }

    // MARK: TLS

    /// Starts TLS. The handshake must be completed first; see `handshake`.
    package func start(_ session: TLSSession) { tls = session }

    /// Continues the handshake; see `TLSSession.handshake`.
    package func handshake() throws(TLSError) -> TLSSession.Progress {
        guard let tls else { return .done }
        return try tls.handshake(on: number)
    }

    /// Continues without TLS.
    ///
    /// - Returns: the bytes received so far.
    package func becomePlain() -> [UInt8] {
        defer { tls = nil }
        return tls?.takeInput() ?? []
    }

    /// Whether the peer has ended its output (close_notify); its socket may still be open.
    package var inputHasEnded: Bool { tls?.inputHasEnded ?? false }

    /// Whether the input ended without close_notify, so that an attacker may have truncated it (RFC
    /// 8446 §6.1).
    package var inputWasCut: Bool { tls?.inputWasCut ?? false }

    /// The description of the alert with which the peer ended TLS, if it did.
    package var refusal: String? { tls?.refusal }

    /// The connection's security, once the handshake is done.
    package var security: Security { if let tls { .tls(tls.information()) } else { .plain } }

    /// Decrypts data received right behind the handshake.
    func openReceived(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        guard let tls else { return .wouldBlock }
        return try unsafe tls.openEarly(into: buffer, on: number)
    }

    /// Encrypts and writes. Unsent ciphertext is kept in the session, plaintext that was not
    /// encrypted in the queue.
    private func write(_ bytes: UnsafeRawBufferPointer, through tls: TLSSession) throws(SystemError) {
        var rest = unsafe bytes[...]
        while unsafe !rest.isEmpty {
            guard tls.sealedBytes == 0 else { return unsafe enqueue(copying: UnsafeRawBufferPointer(rebasing: rest)) }
            let part = unsafe UnsafeRawBufferPointer(rebasing: rest.prefix(TLSBuffers.sealedAtOnce))
            try unsafe tls.write(part, to: number)
            unsafe rest = rest.dropFirst(part.count)
        }
    }
}
