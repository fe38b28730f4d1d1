import ApusCodec
import ApusPlatform
public import Logging
import Synchronization

/// Writes each line to standard error in one call: `2026-11-22T13:05:38.123Z notice apus: …`, in
/// UTC.
///
/// It reads no time zone files, so it works in a sandboxed worker, and never blocks: while the pipe
/// of standard error is full, lines are dropped and their number is logged later.
public struct StandardErrorLogHandler: LogHandler {
    private let label: String
    private var ownLevel = Logger.Level.info
    public var logLevel: Logger.Level {
        get { LogLevelOverride.level ?? ownLevel }
        set { ownLevel = newValue }
    }
    public var metadata = Logger.Metadata()

    public init(label: String) { self.label = label }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        let line = LogLine.format(event.level, label, "\(event.message)", metadata.merging(event.metadata ?? [:]) { $1 })
        Self.write(line + "\n")
    }

    /// Lines lost in this process since the last one that was written.
    private static let lost = Atomic(0)

    private static func write(_ line: String) {
        let count = lost.load(ordering: .relaxed)
        let note = count == 0 ? "" : LogLine.lost(count, "standard error was not writable")
        guard StandardError.write(note + line) else {
            lost.wrappingAdd(1, ordering: .relaxed)
            return
        }
        lost.wrappingSubtract(count, ordering: .relaxed)
    }
}

/// The format of log lines.
enum LogLine {
    /// The line that reports lost lines, with its line feed.
    static func lost(_ count: Int, _ reason: String) -> String {
        format(.warning, "apus", "\(count) log \(count == 1 ? "line" : "lines") lost: \(reason)", [:]) + "\n"
    }

    /// A worker's record as a line with its line feed: `…MESSAGE KEY=VALUE pid=NUMBER`. Control
    /// characters become spaces, invalid UTF-8 is replaced.
    static func ofWorker(_ record: [UInt8], _ worker: Int32) -> [UInt8] {
        Array("\(withoutControls(String(decoding: record, as: UTF8.self))) pid=\(worker)\n".utf8)
    }

    private static func withoutControls(_ text: String) -> String {
        var line = String.UnicodeScalarView()
        for scalar in text.unicodeScalars { line.append(isLineBreakOrControl(scalar) ? " " : scalar) }
        while line.last == " " { line.removeLast() }
        return String(line)
    }

    /// C0, delete, C1, and the Unicode line and paragraph separators.
    private static func isLineBreakOrControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) || scalar.value == 0x2028 || scalar.value == 0x2029
    }

    /// `2026-11-22T13:05:38.123Z notice apus: MESSAGE KEY=VALUE…`, without a line feed.
    static func format(_ level: Logger.Level, _ label: String, _ message: String, _ metadata: Logger.Metadata) -> String {
        let (seconds, milliseconds) = WallClock.secondsAndMilliseconds()
        let fraction = String(milliseconds + 1000).dropFirst()
        var line = "\(HTTPDate.formatTimestamp(secondsSince1970: seconds)).\(fraction)Z \(level) \(label): \(message)"
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
        // An error's text may contain client input, which must not start a new line.
        return line.unicodeScalars.contains(where: isLineBreakOrControl) ? withoutControls(line) : line
    }
}
