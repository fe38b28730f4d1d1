import ApusCodec
import ApusPlatform
public import Logging

/// Writes each line to standard error in one call: `2026-11-22T13:05:38.123Z notice apus: …`, in UTC.
///
/// It never looks at the time zone's files, so it works in a sandboxed worker. What cannot be written is dropped: serving goes on.
public struct StandardErrorLogHandler: LogHandler {
    private let label: String
    public var logLevel = Logger.Level.info
    public var metadata = Logger.Metadata()

    public init(label: String) { self.label = label }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        let line = LogLine.format(event.level, label, "\(event.message)", metadata.merging(event.metadata ?? [:]) { $1 })
        try? FileSystem.writeAll(2, line + "\n")
    }
}

/// How a line of the log looks.
enum LogLine {
    /// `2026-11-22T13:05:38.123Z notice apus: MESSAGE KEY=VALUE…`, without its end.
    static func format(_ level: Logger.Level, _ label: String, _ message: String, _ metadata: Logger.Metadata) -> String {
        let (seconds, milliseconds) = WallClock.secondsAndMilliseconds()
        let fraction = String(milliseconds + 1000).dropFirst()
        var line = "\(HTTPDate.formatTimestamp(secondsSince1970: seconds)).\(fraction)Z \(level) \(label): \(message)"
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
        return line
    }
}
