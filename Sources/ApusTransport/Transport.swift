package import ApusPlatform
import Glibc

/// One connection's bytes: a socket, the queue in front of it, and TLS where that is spoken. A class, so that using it needs no exclusivity check on its owner.
package final class Transport {
    /// The socket's number; -1 once closed.
    package var descriptor: Int32 { number }
    private var number: Int32
    private var queue = WriteQueue()
    /// What the queue holds, in bytes, as it is: looked at with each write, where an access to the queue would have to be checked.
    private var queuedBytes = 0

    /// Bytes that were to be written since the beginning, whether they wait or have left.
    package var writtenBytes: Int {
        @inline(never) get { written }
    }
    private var written = 0

    /// Output was lost: the peer must not be told that it has all.
    private var hasDropped = false

    /// Nil while bytes pass as they are.
    private var tls: TLSSession?

    /// Where copies of what waits are put.
    private let buffers: BufferPool?

    /// - Parameter buffers: the worker's, which counts what waits; nil where nobody does.
    package init(_ descriptor: consuming OwnedDescriptor, buffers: BufferPool? = nil) {
        number = descriptor.release()
        self.buffers = buffers
    }

    deinit {
        if number >= 0 { _ = OwnedDescriptor(rawValue: number) }
    }

    /// Closes the socket and drops what is queued.
    package func close() {
        guard number >= 0 else { return }
        if let tls, !hasBufferedOutput, !hasDropped { tls.sendEnd(to: number) }
        _ = OwnedDescriptor(rawValue: number)
        number = -1
        dropOutput()
    }

    /// Bytes that wait for the kernel.
    package var bufferedBytes: Int { queuedBytes + (tls?.sealedBytes ?? 0) }
    package var hasBufferedOutput: Bool { bufferedBytes > 0 }

    /// Receives once; `.done(0)` is the end.
    @inline(__always)
    func receive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        guard let tls else { return try unsafe Socket.receive(number, into: buffer) }
        return try unsafe tls.receive(from: number, into: buffer)
    }

    /// Writes `bytes` after what is queued; what the kernel does not take is copied into the queue.
    private func write(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        guard queuedBytes == 0 else { return unsafe enqueue(copying: bytes) }
        if let tls { return try unsafe write(bytes, through: tls) }
        switch try unsafe Socket.send(number, bytes) {
        case .done(bytes.count): return
        case .done(let sent): unsafe enqueue(copying: UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        case .wouldBlock: unsafe enqueue(copying: bytes)
        }
    }

    /// Writes two runs of bytes in one call, such as a header and a payload too large for the cork. What the kernel does not take of the
    /// second run is queued by reference to `chunk`, if it is the end of that, and copied otherwise.
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

    /// Writes both in one call.
    ///
    /// - Parameter chunk: where the second lies, if it does: then what must wait of it is not copied.
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

    /// Writes shared bytes at once if nothing is queued; what the kernel does not take is queued by reference.
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

    /// Writes what is queued until the kernel takes no more.
    ///
    /// - Parameter scratch: an empty buffer in which small pieces may be put together.
    package func flush(gathering scratch: OutputBuffer? = nil) throws(SystemError) -> WriteQueue.Outcome {
        if let tls {
            defer { queuedBytes = queue.byteCount }
            return try tls.flush(&queue, to: number)
        }
        defer { queuedBytes = queue.byteCount }
        return try queue.write(to: number, gathering: scratch)
    }

    /// - Parameter isIncomplete: Output that never reached this queue was lost, too.
    package func dropOutput(isIncomplete: Bool = false) {
        if hasBufferedOutput || isIncomplete { hasDropped = true }
        queue.removeAll()
        tls?.dropOutput()
        queuedBytes = 0
    }

    /// Receives once for nothing: not even TLS looks at it, and so answers nothing.
    func discard(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        try unsafe Socket.receive(number, into: buffer)
    }

    /// Says that nothing more will be written.
    package func shutdownWrite() {
        if let tls { tls.sendEnd(to: number) }
        try? Socket.shutdownWrite(descriptor)
    }

    // MARK: TLS

    /// From here on all bytes pass through `session`, whose handshake comes first: see `handshake`.
    package func start(_ session: TLSSession) { tls = session }

    /// Goes on with the handshake: see `TLSSession.handshake`.
    package func handshake() throws(TLSError) -> TLSSession.Progress {
        guard let tls else { return .done }
        return try tls.handshake(on: number)
    }

    /// The peer speaks plainly: bytes pass as they are. Gives those that came already.
    package func becomePlain() -> [UInt8] {
        defer { tls = nil }
        return tls?.takeInput() ?? []
    }

    /// The peer has said that it will send no more, while its end of the socket may still be open.
    package var inputHasEnded: Bool { tls?.inputHasEnded ?? false }

    /// The input of TLS ended in a way that anybody in between can bring about (RFC 8446 §6.1).
    package var inputWasCut: Bool { tls?.inputWasCut ?? false }

    /// The alert with which the peer ended TLS, if it did, in words.
    package var refusal: String? { tls?.refusal }

    /// What protects these bytes, once the handshake is done.
    package var security: Security { if let tls { .tls(tls.information()) } else { .plain } }

    /// Opens what came right behind the handshake.
    func openReceived(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int> {
        guard let tls else { return .wouldBlock }
        return try unsafe tls.openEarly(into: buffer, on: number)
    }

    /// Seals and writes: what the kernel does not take of the sealed bytes waits in the session, what was not sealed in the queue.
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
