import ApusPlatform
package import Logging
import Synchronization

/// The log level of this process that was set at run time (`apus log-level`). It overrides the
/// level of `StandardErrorLogHandler` and `LogFile.Handler`.
enum LogLevelOverride {
    /// An index in `Logger.Level.allCases`; below zero: no override.
    private static let number = Atomic<Int>(-1)

    static var level: Logger.Level? {
        let number = number.load(ordering: .relaxed)
        return number < 0 ? nil : Logger.Level.allCases[number]
    }

    /// Sets the level with this index in `Logger.Level.allCases`.
    ///
    /// - Returns: the level; nil for an invalid index, which changes nothing.
    @discardableResult
    static func set(_ index: UInt8) -> Logger.Level? {
        guard Int(index) < Logger.Level.allCases.count else { return nil }
        number.store(Int(index), ordering: .relaxed)
        return Logger.Level.allCases[Int(index)]
    }

    static func clear() { number.store(-1, ordering: .relaxed) }
}

/// Sets the log level of a running master, by a signal.
package enum LogLevelRequest {
    package enum Failure: Error {
        /// The process does not block the signal, so it does not handle it and could be killed by
        /// it.
        case notUnderstood
        /// The system's reason.
        case refused(String)
    }

    package static func send(_ level: Logger.Level, to master: Int32) throws(Failure) {
        guard Signal.isBlocked(Signal.logLevel, in: master) else { throw .notUnderstood }
        do throws(SystemError) {
            try Signal.queue(Signal.logLevel, Int32(Logger.Level.allCases.firstIndex(of: level) ?? 0), to: master)
        } catch {
            throw .refused(error.reason)
        }
    }

    /// Reads the process number from a server's pid file.
    package static func master(pidFile path: String) throws(Failure) -> Int32 {
        let text: [UInt8]?
        do { text = try FileSystem.contents(of: path, maxBytes: 64) } catch { throw .refused(error.reason) }
        guard let text, let pid = Int32(String(decoding: text.prefix { $0 != 10 }, as: UTF8.self)), pid > 0 else {
            throw .refused("expected the number of a process, got something else")
        }
        return pid
    }
}
