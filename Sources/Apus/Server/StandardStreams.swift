import ApusPlatform

/// The three descriptors that a process is started with.
package enum StandardStreams {
    /// What became of a write.
    package enum Outcome {
        case written
        /// Nobody reads any more.
        case readerHasGone
        /// The system's words.
        case failed(String)
    }

    /// Opens `/dev/null` as those of 0, 1 and 2 that are closed: the next file or socket that is opened would get the number, and with it
    /// what is meant for the terminal. To be called before anything else is opened.
    package static func occupy() { Process.occupyStandardDescriptors() }

    /// Writes all bytes to standard output; waits until they are taken.
    package static func write(_ bytes: [UInt8]) -> Outcome {
        do throws(SystemError) {
            try FileSystem.writeAll(1, bytes)
            return .written
        } catch {
            return error.code == SystemError.brokenPipe ? .readerHasGone : .failed(error.reason)
        }
    }

    /// Writes to standard error. What cannot be written is lost: there is nowhere else to say so.
    package static func note(_ text: String) { try? FileSystem.writeAll(2, text) }
}
