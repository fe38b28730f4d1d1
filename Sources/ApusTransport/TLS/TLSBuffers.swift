import ApusPlatform
import COpenSSL

/// Where the TLS of one worker meets its sockets: what was received and not yet opened, and what was sealed and not yet sent. All connections
/// share it, one at a time, and one BIO that reads and writes here; so an idle connection holds no buffer, many records arrive with one call
/// and leave with one.
@safe package final class TLSBuffers {
    /// Behind a pointer that the BIO has, too: stored properties would cost an exclusivity check with each access from its callbacks.
    @unsafe private struct Store {
        /// What was received; OpenSSL has taken what lies before `inputStart`.
        let input: UnsafeMutableRawBufferPointer
        var inputStart = 0
        var inputEnd = 0
        /// What was sealed.
        var output: UnsafeMutableRawBufferPointer
        var outputEnd = 0
    }

    private let store: UnsafeMutablePointer<Store>
    private let bio: OpaquePointer
    let pool: BufferPool?
    /// Where what is queued is put together before it is sealed.
    let plain = OutputBuffer(capacity: TLSBuffers.sealedAtOnce)

    /// What is sealed at once, in bytes: four records.
    static let sealedAtOnce = 64 * 1024
    /// Room for sealed bytes that is kept, in bytes: a handshake with a long chain of certificates may want more.
    private static let outputKept = sealedAtOnce + 16 * 1024
    /// What may be held of a record whose rest has not come, in bytes.
    private static let largestRecord = 17 * 1024

    /// - Parameters:
    ///   - receiveBytes: room for what is opened at once; less is received, so that it always fits.
    ///   - pool: the worker's, which counts what connections hold; nil where nobody does.
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

    /// Makes a session read and write here.
    func attach(to ssl: OpaquePointer) {
        unsafe BIO_up_ref(bio)
        // SAFETY: the session takes over this one reference for both directions (SSL_set_bio(3)).
        unsafe SSL_set_bio(ssl, bio, bio)
    }

    // MARK: Input

    /// Receives what will be opened; `.done(0)` is the end. A session leaves nothing here when it is done with an event.
    ///
    /// - Parameter partial: what the session has of a record, to stand in front of what comes: at most `largestRecord` bytes.
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

    /// Puts bytes where received ones would be: no more than one arrival has.
    func put(_ bytes: [UInt8]) {
        assert(!hasInput, "another session's bytes have not been taken")
        let count = unsafe min(bytes.count, store.pointee.input.count)
        unsafe store.pointee.input.copyBytes(from: bytes.prefix(count))
        unsafe (store.pointee.inputStart, store.pointee.inputEnd) = (0, count)
    }

    /// What was received and not taken.
    var input: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(rebasing: store.pointee.input[store.pointee.inputStart..<store.pointee.inputEnd])
    }

    var hasInput: Bool { unsafe store.pointee.inputStart < store.pointee.inputEnd }

    /// Forgets what was not taken: the session ends, or is none.
    func dropInput() { unsafe store.pointee.inputStart = store.pointee.inputEnd }

    // MARK: Output

    /// What was sealed and not sent.
    var output: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: store.pointee.output[..<store.pointee.outputEnd]) }

    /// Makes room for so many bytes behind what was sealed, for the caller to fill.
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
            // SAFETY: OpenSSL has room for `size` octets.
            unsafe UnsafeMutableRawBufferPointer(start: destination, count: count).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: store.pointee.input[start..<start + count]))
            unsafe store.pointee.inputStart = start + count
            return Int32(count)
        }
        unsafe BIO_meth_set_write(method) { bio, source, size in
            guard let store = unsafe TLSBuffers.store(of: bio), size > 0 else { return 0 }
            // SAFETY: OpenSSL gives `size` octets, for which room is made.
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
