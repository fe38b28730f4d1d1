import ApusPlatform
package import Logging
import Synchronization

/// The level of this process's loggers that has been asked for while the server runs (`apus log-level`), in place of their own. It reaches
/// the handlers of this library: `StandardErrorLogHandler` and `LogFile.Handler`.
enum LogLevelOverride {
    /// Below zero for none.
    private static let number = Atomic<Int>(-1)

    static var level: Logger.Level? {
        let number = number.load(ordering: .relaxed)
        return number < 0 ? nil : Logger.Level.allCases[number]
    }

    /// Sets the level that has this index among all levels, and returns it; nil, and no change, if there is none.
    @discardableResult
    static func set(_ index: UInt8) -> Logger.Level? {
        guard Int(index) < Logger.Level.allCases.count else { return nil }
        number.store(Int(index), ordering: .relaxed)
        return Logger.Level.allCases[Int(index)]
    }

    static func clear() { number.store(-1, ordering: .relaxed) }
}

/// Asks another process, a server's master, to log from another level on.
package enum LogLevelRequest {
    package enum Failure: Error {
        /// The process knows no such request, and might die of it.
        case notUnderstood
        /// The system's words.
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

    /// The number in a server's pid file.
    package static func master(pidFile path: String) throws(Failure) -> Int32 {
        let text: [UInt8]?
        do { text = try FileSystem.contents(of: path, maxBytes: 64) } catch { throw .refused(error.reason) }
        guard let text, let pid = Int32(String(decoding: text.prefix { $0 != 10 }, as: UTF8.self)), pid > 0 else {
            throw .refused("expected the number of a process, got something else")
        }
        return pid
    }
}
