import ApusPlatform

/// Standard input, output and error of the process.
package enum StandardStreams {
    /// The result of a write.
    package enum Outcome {
        case written
        /// EPIPE: the reader has closed the pipe.
        case readerHasGone
        /// The system's reason.
        case failed(String)
    }

    /// Opens `/dev/null` for each of 0, 1 and 2 that is closed: otherwise the next file or socket
    /// gets the number, and the output for the terminal. Call it before anything is opened.
    package static func occupy() { Process.occupyStandardDescriptors() }

    /// Writes all bytes to standard output; blocks until done.
    package static func write(_ bytes: [UInt8]) -> Outcome {
        do throws(SystemError) {
            try FileSystem.writeAll(1, bytes)
            return .written
        } catch {
            return error.code == SystemError.brokenPipe ? .readerHasGone : .failed(error.reason)
        }
    }

    /// Writes to standard error; errors are ignored.
    package static func note(_ text: String) { try? FileSystem.writeAll(2, text) }
}
