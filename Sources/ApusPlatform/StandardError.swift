import CLinux
import Glibc
import Synchronization

/// This process's standard error, as the C library and the Swift runtime use it.
package enum StandardError {
    /// What is written to the C library's `stderr`, as the runtime's "Fatal error: …" is, goes to a channel, too, until the process ends: one
    /// record a line, behind `tag`, without its end, of at most `maxBytes`. Nothing waits for the channel; what it does not take is not told.
    ///
    /// Notes of the platform's own, such as a thread that was refused, are records behind `noteTag`.
    ///
    /// Writing to descriptor 2, as loggers do, stays as it is.
    package static func relay(to channel: Int32, tag: UInt8, noteTag: UInt8, maxBytes: Int) {
        // Neither can be asked in a sandbox.
        _ = isFile
        isWorker.store(true, ordering: .relaxed)
        apus_relay_errors(channel, tag, noteTag, maxBytes)
    }

    private static let isWorker = Atomic(false)

    /// Writes to descriptor 2 without waiting for whoever reads it, though the descriptor blocks. False if it did not take all of `text`.
    package static func write(_ text: String) -> Bool {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let piece = bytes.prefix(pipeBytes)
            guard let count = writePiece(piece) else { return false }
            bytes = bytes.dropFirst(count)
        }
        return true
    }

    /// What a pipe takes as one if it takes anything (`PIPE_BUF`).
    private static let pipeBytes = 4096

    private static func writePiece(_ piece: ArraySlice<UInt8>) -> Int? {
        while true {
            let count = unsafe piece.withUnsafeBytes { unsafe apus_write_without_waiting(2, $0.baseAddress, $0.count) }
            if count >= 0 { return count }
            switch errno {
            case EINTR: continue
            // A terminal, and a pipe of a kernel before 6.4, cannot be written like this. The master asks, then writes; a worker in its sandbox
            // must do without asking, and is replaced if it waits for too long.
            case EOPNOTSUPP, ENOSYS: return isWorker.load(ordering: .relaxed) || isWritable ? waitingWrite(piece) : nil
            // A file whose next block is not there yet says so, too.
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

    /// As it was first asked for: nobody gives a running process another standard error.
    private static let isFile: Bool = {
        var status = stat()
        return unsafe fstat(2, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }()
}
