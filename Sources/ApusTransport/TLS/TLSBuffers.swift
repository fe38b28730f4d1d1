import ApusPlatform
import COpenSSL

/// The TLS buffers of one worker: received bytes not decrypted yet, and encrypted bytes not sent
/// yet. All connections share them, one event at a time, through one BIO; so an idle connection
/// holds no buffer, and many records are received and sent per system call.
@safe package final class TLSBuffers {
    /// Behind a pointer that the BIO holds too: accesses from its callbacks to stored properties
    /// would cost exclusivity checks.
    @unsafe private struct Store {
        /// Received bytes; OpenSSL has consumed those before `inputStart`.
        let input: UnsafeMutableRawBufferPointer
        var inputStart = 0
        var inputEnd = 0
        /// Encrypted bytes.
        var output: UnsafeMutableRawBufferPointer
        var outputEnd = 0
    }

    private let store: UnsafeMutablePointer<Store>
    private let bio: OpaquePointer
    let pool: BufferPool?
    /// Collects queued plaintext before encryption.
    let plain = OutputBuffer(capacity: TLSBuffers.sealedAtOnce)

    /// Plaintext encrypted at once, in bytes: four records.
    static let sealedAtOnce = 64 * 1024
    /// Capacity for encrypted bytes that is kept, in bytes; a handshake with a long certificate
    /// chain may need more.
    private static let outputKept = sealedAtOnce + 16 * 1024
    /// Most bytes of an incomplete record.
    private static let largestRecord = 17 * 1024

    /// - Parameters:
    ///   - receiveBytes: room for decrypted bytes; less is received at once, so that they always
    ///     fit.
    ///   - pool: the worker's pool, which counts held bytes; nil for none.
    package init(receiveBytes: Int, pool: BufferPool? = nil) {
        self.pool = pool
        precondition(receiveBytes >= 2 * Self.largestRecord, "the receive buffer is too small for TLS")
        unsafe store = .allocate(capacity: 1)
        unsafe store.initialize(
            to: Store(
                input: .allocate(byteCount: receiveBytes - Self.largestRecord, alignment: 64),
                output: .allocate(byteCount: Self.outputKept, alignment: 64)))
        unsafe bio = BIO_new(Self.method)
        unsafe BIO_set_data(bio, store)
        unsafe BIO_set_init(bio, 1)
    }

    deinit {
        unsafe BIO_free(bio)
        unsafe store.pointee.input.deallocate()
        unsafe store.pointee.output.deallocate()
        unsafe store.deallocate()
    }

    /// Makes a session read from and write to these buffers.
    func attach(to ssl: OpaquePointer) {
        unsafe BIO_up_ref(bio)
        // SAFETY: SSL_set_bio(3) takes over this one reference for both directions.
        unsafe SSL_set_bio(ssl, bio, bio)
    }

    // MARK: Input

    /// Receives bytes to decrypt. A session consumes all of them before its event ends.
    ///
    /// - Parameter partial: the session's incomplete record, at most `largestRecord` bytes, placed
    ///   before the received bytes.
    /// - Returns: `.done(0)` at the end of input.
    func receive(from socket: Int32, behind partial: [UInt8] = []) throws(SystemError) -> IOResult<Int> {
        assert(!hasInput, "another session's bytes have not been taken")
        let room = unsafe UnsafeMutableRawBufferPointer(rebasing: store.pointee.input[partial.count...])
        let result = try unsafe Socket.receive(socket, into: room)
        guard case .done(let count) = result, count > 0 else {
            dropInput()
            return result
        }
        if !partial.isEmpty { unsafe store.pointee.input.copyBytes(from: partial) }
        unsafe (store.pointee.inputStart, store.pointee.inputEnd) = (0, partial.count + count)
        return result
    }

    /// Copies bytes to where received ones would be; at most as many as one receive returns.
    func put(_ bytes: [UInt8]) {
        assert(!hasInput, "another session's bytes have not been taken")
        let count = unsafe min(bytes.count, store.pointee.input.count)
        unsafe store.pointee.input.copyBytes(from: bytes.prefix(count))
        unsafe (store.pointee.inputStart, store.pointee.inputEnd) = (0, count)
    }

    /// Received bytes that were not consumed.
    var input: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(rebasing: store.pointee.input[store.pointee.inputStart..<store.pointee.inputEnd])
    }

    var hasInput: Bool { unsafe store.pointee.inputStart < store.pointee.inputEnd }

    /// Discards unconsumed bytes when the session ends or does not start.
    func dropInput() { unsafe store.pointee.inputStart = store.pointee.inputEnd }

    // MARK: Output

    /// Encrypted bytes that were not sent.
    var output: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: store.pointee.output[..<store.pointee.outputEnd]) }

    /// Extends the output by `count` bytes for the caller to write.
    func extendOutput(by count: Int) -> UnsafeMutableRawBufferPointer { unsafe Self.extend(store, by: count) }

    func dropOutput() {
        unsafe store.pointee.outputEnd = 0
        guard unsafe store.pointee.output.count > Self.outputKept else { return }
        unsafe store.pointee.output.deallocate()
        unsafe store.pointee.output = .allocate(byteCount: Self.outputKept, alignment: 64)
    }

    // MARK: The BIO

    private nonisolated(unsafe) static let method: OpaquePointer? = {
        let method = unsafe BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "apus")
        unsafe BIO_meth_set_read(method) { bio, destination, size in
            guard let store = unsafe TLSBuffers.store(of: bio) else { return -1 }
            let count = unsafe min(Int(size), store.pointee.inputEnd - store.pointee.inputStart)
            guard count > 0 else {
                unsafe apus_bio_set_retry_read(bio)
                return -1
            }
            let start = unsafe store.pointee.inputStart
            // SAFETY: OpenSSL's buffer has room for `size` octets.
            unsafe UnsafeMutableRawBufferPointer(start: destination, count: count).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: store.pointee.input[start..<start + count]))
            unsafe store.pointee.inputStart = start + count
            return Int32(count)
        }
        unsafe BIO_meth_set_write(method) { bio, source, size in
            guard let store = unsafe TLSBuffers.store(of: bio), size > 0 else { return 0 }
            // SAFETY: OpenSSL passes `size` octets, for which there is room.
            unsafe TLSBuffers.extend(store, by: Int(size)).copyMemory(
                from: UnsafeRawBufferPointer(start: source, count: Int(size)))
            return size
        }
        unsafe BIO_meth_set_ctrl(method) { _, command, _, _ in command == BIO_CTRL_FLUSH ? 1 : 0 }
        return unsafe method
    }()

    /// SAFETY: only the initialiser makes BIOs of this kind, and sets their data.
    private static func store(of bio: OpaquePointer?) -> UnsafeMutablePointer<Store>? {
        unsafe BIO_get_data(bio)?.assumingMemoryBound(to: Store.self)
    }

    private static func extend(_ store: UnsafeMutablePointer<Store>, by count: Int) -> UnsafeMutableRawBufferPointer {
        let end = unsafe store.pointee.outputEnd
        if unsafe store.pointee.output.count - end < count { unsafe grow(store, by: count) }
        unsafe store.pointee.outputEnd = end + count
        return unsafe UnsafeMutableRawBufferPointer(rebasing: store.pointee.output[end..<end + count])
    }

    private static func grow(_ store: UnsafeMutablePointer<Store>, by count: Int) {
        let old = unsafe store.pointee.output
        let new = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * (old.count + count), alignment: 64)
        unsafe new.copyMemory(from: UnsafeRawBufferPointer(rebasing: old[..<store.pointee.outputEnd]))
        unsafe old.deallocate()
        unsafe store.pointee.output = new
    }
}
