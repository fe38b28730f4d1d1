import CLinux
import Glibc
import Synchronization

/// This process's standard error, as used by the C library and the Swift runtime.
package enum StandardError {
    /// Copies what is written to the C library's `stderr`, such as the runtime's "Fatal error: …",
    /// to a channel: one record per line, after `tag`, without the line end, at most `maxBytes`.
    /// Writing never waits for the channel; what it cannot take is lost.
    ///
    /// Notes of the platform itself, such as a refused thread, are records after `noteTag`.
    ///
    /// Writes to descriptor 2, such as those of loggers, are not affected.
    package static func relay(to channel: Int32, tag: UInt8, noteTag: UInt8, maxBytes: Int) {
        // Evaluate it now: `fstat` is not allowed in the sandbox.
        _ = isFile
        isWorker.store(true, ordering: .relaxed)
        apus_relay_errors(channel, tag, noteTag, maxBytes)
    }

    private static let isWorker = Atomic(false)

    /// Writes to descriptor 2 without waiting for its reader, although the descriptor is blocking.
    ///
    /// - Returns: false if not all of `text` was written.
    package static func write(_ text: String) -> Bool {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let piece = bytes.prefix(pipeBytes)
            guard let count = writePiece(piece) else { return false }
            bytes = bytes.dropFirst(count)
        }
        return true
    }

    /// Most bytes that a pipe takes atomically (`PIPE_BUF`).
    private static let pipeBytes = 4096

    private static func writePiece(_ piece: ArraySlice<UInt8>) -> Int? {
        while true {
            let count = unsafe piece.withUnsafeBytes { unsafe apus_write_without_waiting(2, $0.baseAddress, $0.count) }
            if count >= 0 { return count }
            switch errno {
            case EINTR: continue
            // A terminal, and a pipe of a kernel before 6.4, do not support this. The master polls,
            // then writes; a sandboxed worker writes without polling, and is replaced if it blocks
            // too long.
            case EOPNOTSUPP, ENOSYS: return isWorker.load(ordering: .relaxed) || isWritable ? waitingWrite(piece) : nil
            // A regular file whose next block is not cached returns EAGAIN too.
            case EAGAIN: return isFile ? waitingWrite(piece) : nil
            default: return nil
            }
        }
    }

    private static func waitingWrite(_ piece: ArraySlice<UInt8>) -> Int? {
        let count = unsafe piece.withUnsafeBytes { unsafe Glibc.write(2, $0.baseAddress, $0.count) }
        return count >= 0 ? count : nil
    }

    private static var isWritable: Bool {
        var waiting = pollfd(fd: 2, events: Int16(POLLOUT), revents: 0)
        return unsafe poll(&waiting, 1, 0) == 1 && Int32(waiting.revents) & POLLOUT != 0
    }

    /// Evaluated once: standard error does not change while the process runs.
    private static let isFile: Bool = {
        var status = stat()
        return unsafe fstat(2, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }()
}
