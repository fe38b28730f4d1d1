import ApusCodec
import ApusPlatform
public import Logging
import Synchronization

/// Writes each line to standard error in one call: `2026-11-22T13:05:38.123Z notice apus: …`, in UTC.
///
/// It never looks at the time zone's files, so it works in a sandboxed worker. It never waits: a line that standard error does not take, because
/// nobody reads its pipe, is dropped, and how many were is said once there is room.
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

    /// Lines of this process that nobody will read, since the last that was written.
    private static let lost = Atomic(0)

    private static func write(_ line: String) {
        let count = lost.load(ordering: .relaxed)
        let note = count == 0 ? "" : LogLine.lost(count, "standard error took no more")
        guard StandardError.write(note + line) else {
            lost.wrappingAdd(1, ordering: .relaxed)
            return
        }
        lost.wrappingSubtract(count, ordering: .relaxed)
    }
}

/// How a line of the log looks.
enum LogLine {
    /// A line of ours about lines that were lost, with its end.
    static func lost(_ count: Int, _ reason: String) -> String {
        format(.warning, "apus", "\(count) log \(count == 1 ? "line" : "lines") lost: \(reason)", [:]) + "\n"
    }

    /// What a worker wants written, as one line, with its end: `…MESSAGE KEY=VALUE pid=NUMBER`. Control characters become spaces, what is no
    /// UTF-8 is replaced.
    static func ofWorker(_ record: [UInt8], _ worker: Int32) -> [UInt8] {
        Array("\(withoutControls(String(decoding: record, as: UTF8.self))) pid=\(worker)\n".utf8)
    }

    private static func withoutControls(_ text: String) -> String {
        var line = String.UnicodeScalarView()
        for scalar in text.unicodeScalars { line.append(isLineBreakOrControl(scalar) ? " " : scalar) }
        while line.last == " " { line.removeLast() }
        return String(line)
    }

    /// C0, delete, C1, and the two separators that some readers take for the end of a line.
    private static func isLineBreakOrControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) || scalar.value == 0x2028 || scalar.value == 0x2029
    }

    /// `2026-11-22T13:05:38.123Z notice apus: MESSAGE KEY=VALUE…`, without its end.
    static func format(_ level: Logger.Level, _ label: String, _ message: String, _ metadata: Logger.Metadata) -> String {
        let (seconds, milliseconds) = WallClock.secondsAndMilliseconds()
        let fraction = String(milliseconds + 1000).dropFirst()
        var line = "\(HTTPDate.formatTimestamp(secondsSince1970: seconds)).\(fraction)Z \(level) \(label): \(message)"
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
        // An error's text may hold what a client sent: it must not begin a line of its own.
        return line.unicodeScalars.contains(where: isLineBreakOrControl) ? withoutControls(line) : line
    }
}
