package import ApusPlatform
import DequeModule
import Glibc

/// An open file referenced by queued pieces; closed with the last of them.
package final class SharedFile {
    package let descriptor: OwnedDescriptor
    package init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
}

/// Output that the kernel has not taken, in order. An empty queue owns no memory.
package struct WriteQueue: ~Copyable {
    fileprivate enum Piece {
        /// Bytes from `offset` to the chunk's end. Only a chunk made by the queue may still grow.
        case bytes(ByteChunk, offset: Int, isOurs: Bool)
        case file(SharedFile, offset: Int, count: Int)
    }

    private var pieces: Deque<Piece> = []
    /// Bytes queued, files included.
    package private(set) var byteCount = 0

    /// Capacity of the chunks that collect small appends, in bytes.
    private static let chunkBytes = 16 * 1024
    /// Most bytes that are coalesced by copying instead of gathered by the kernel.
    private static let maxCopied = 8 * 1024
    /// Most pieces per system call.
    private static let maxGathered = 64

    package init() {}

    package var isEmpty: Bool { pieces.isEmpty }

    /// Appends a reference to immutable bytes, from `offset` on.
    package mutating func append(_ chunk: ByteChunk, from offset: Int = 0) {
        guard chunk.count > offset else { return }
        pieces.append(.bytes(chunk, offset: offset, isOurs: false))
        byteCount += chunk.count - offset
    }

    /// Appends a copy of `bytes`, in memory of `pool` if there is one.
    package mutating func append(copying bytes: UnsafeRawBufferPointer, into pool: BufferPool? = nil) {
        guard unsafe !bytes.isEmpty else { return }
        byteCount += bytes.count
        if case .bytes(let last, _, isOurs: true)? = pieces.last, last.capacity - last.count >= bytes.count {
            unsafe last.append(bytes)
            return
        }
        let chunk = ByteChunk(capacity: pieces.isEmpty ? bytes.count : max(bytes.count, Self.chunkBytes), from: pool)
        unsafe chunk.append(bytes)
        pieces.append(.bytes(chunk, offset: 0, isOurs: true))
    }

    /// Appends `count` bytes of a file from `offset`; `sendfile(2)` sends them without a copy.
    package mutating func append(_ file: SharedFile, offset: Int, count: Int) {
        guard count > 0 else { return }
        pieces.append(.file(file, offset: offset, count: count))
        byteCount += count
    }

    package mutating func removeAll() {
        pieces = []
        byteCount = 0
    }

    /// Why `write` stopped.
    package enum Outcome: Equatable {
        case empty
        case blocked
    }

    /// Writes until the queue is empty or the kernel takes no more.
    ///
    /// - Throws: the socket's error, or `EIO` if a file has become shorter than announced.
    package mutating func write(to socket: Int32, gathering scratch: OutputBuffer? = nil) throws(SystemError) -> Outcome {
        while let first = pieces.first {
            let result: IOResult<Int>
            let offered: Int
            switch first {
            case .file(let file, let offset, let count):
                offered = min(count, 1 << 20)
                result = try FileSystem.send(file.descriptor.rawValue, to: socket, from: offset, count: offered)
                if case .done(0) = result { throw SystemError(code: EIO, call: "sendfile") }
            case .bytes:
                if let copied = try writeCopied(to: socket, scratch) {
                    (result, offered) = copied
                } else {
                    (result, offered) = try writeGathered(to: socket)
                }
            }
            switch result {
            case .wouldBlock: return .blocked
            case .done(let sent):
                drop(sent)
                if sent < offered { return .blocked }
            }
        }
        return .empty
    }

    /// Moves as many bytes as fit from the front to an empty buffer.
    ///
    /// - Throws: a file's error, or `EIO` if it has become shorter than announced.
    mutating func move(to buffer: OutputBuffer) throws(SystemError) {
        precondition(buffer.isEmpty)
        while let first = pieces.first {
            let room = buffer.room
            guard room > 0 else { return }
            switch first {
            case .bytes(let chunk, let offset, _):
                let count = min(room, chunk.count - offset)
                let bytes = unsafe UnsafeRawBufferPointer(rebasing: chunk.bytes[offset..<offset + count])
                let fits = unsafe buffer.append(RawSpan(_unsafeBytes: bytes))
                precondition(fits, "the room was asked for")
                drop(count)
            case .file(let file, let offset, let count):
                let got = try buffer.append(file.descriptor.rawValue, offset: offset, count: min(room, count))
                guard got > 0 else { throw SystemError(code: EIO, call: "pread") }
                drop(got)
            }
        }
    }

    /// Coalesces several small pieces, such as the publications of a turn, and writes them: cheaper
    /// than having the kernel gather them.
    ///
    /// - Returns: nil if there is no scratch buffer, only one piece, or too many bytes.
    private func writeCopied(to socket: Int32, _ scratch: OutputBuffer?) throws(SystemError) -> (IOResult<Int>, offered: Int)? {
        guard let scratch, scratch.isEmpty, pieces.count > 1, byteCount <= Self.maxCopied else { return nil }
        for piece in pieces {
            guard case .bytes(let chunk, let offset, _) = piece else { break }
            let rest = unsafe UnsafeRawBufferPointer(rebasing: chunk.bytes[offset...])
            guard unsafe scratch.append(RawSpan(_unsafeBytes: rest)) else { break }
        }
        defer { scratch.removeAll() }
        return (try unsafe Socket.send(socket, scratch.bytes), scratch.count)
    }

    /// Writes the byte pieces at the front in one call.
    private func writeGathered(to socket: Int32) throws(SystemError) -> (IOResult<Int>, offered: Int) {
        var offered = 0
        var failure: SystemError?
        // SAFETY: the pieces keep their chunks alive and unmoved for the length of the call.
        let result = unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: Self.maxGathered) { vectors -> IOResult<Int> in
            var used = 0
            for case .bytes(let chunk, let offset, _) in pieces.prefix(Self.maxGathered).prefix(while: \.isBytes) {
                let rest = unsafe UnsafeRawBufferPointer(rebasing: chunk.bytes[offset...])
                unsafe vectors[used] = iovec(iov_base: UnsafeMutableRawPointer(mutating: rest.baseAddress), iov_len: rest.count)
                used += 1
                offered += rest.count
            }
            do throws(SystemError) {
                return try unsafe Socket.send(socket, pieces: UnsafeMutableBufferPointer(rebasing: vectors[..<used]))
            } catch {
                failure = error
                return .wouldBlock
            }
        }
        if let failure { throw failure }
        return (result, offered)
    }

    /// Removes `sent` bytes from the front.
    private mutating func drop(_ sent: Int) {
        byteCount -= sent
        var sent = sent
        while sent > 0, let first = pieces.first {
            switch first {
            case .bytes(let chunk, let offset, let isOurs):
                let rest = chunk.count - offset
                if sent < rest { pieces[0] = .bytes(chunk, offset: offset + sent, isOurs: isOurs) } else { pieces.removeFirst() }
                sent -= min(sent, rest)
            case .file(let file, let offset, let count):
                if sent < count {
                    pieces[0] = .file(file, offset: offset + sent, count: count - sent)
                } else {
                    pieces.removeFirst()
                }
                sent -= min(sent, count)
            }
        }
        if pieces.isEmpty { pieces = [] }
    }
}

extension WriteQueue.Piece {
    fileprivate var isBytes: Bool {
        switch self {
        case .bytes: true
        case .file: false
        }
    }
}
