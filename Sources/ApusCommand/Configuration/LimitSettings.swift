import Apus

/// The properties of `Limits` by name, as a configuration file sets them and `apus check` prints them.
enum LimitSettings {
    enum Kind {
        case count(WritableKeyPath<Limits, Int>)
        /// Or `auto`.
        case optionalCount(WritableKeyPath<Limits, Int?>)
        case bytes(WritableKeyPath<Limits, Int>)
        case time(WritableKeyPath<Limits, Duration>)
        case policy(WritableKeyPath<Limits, Limits.SlowSubscribers>)
    }

    static var all: [(name: String, kind: Kind)] {
        [
            ("maxRequestHeadBytes", .bytes(\.maxRequestHeadBytes)),
            ("maxRequestTargetBytes", .bytes(\.maxRequestTargetBytes)),
            ("maxRequestFields", .count(\.maxRequestFields)),
            ("maxRequestBodyBytes", .bytes(\.maxRequestBodyBytes)),
            ("maxMessageBytes", .bytes(\.maxMessageBytes)),
            ("messageProgressTimeout", .time(\.messageProgressTimeout)),
            ("minMessageProgressBytes", .bytes(\.minMessageProgressBytes)),
            ("maxBufferedBytes", .bytes(\.maxBufferedBytes)),
            ("maxWorkerBufferBytes", .bytes(\.maxWorkerBufferBytes)),
            ("slowSubscribers", .policy(\.slowSubscribers)),
            ("maxSubscriptions", .count(\.maxSubscriptions)),
            ("tlsHandshakeTimeout", .time(\.tlsHandshakeTimeout)),
            ("requestHeadTimeout", .time(\.requestHeadTimeout)),
            ("bodyTimeout", .time(\.bodyTimeout)),
            ("minBodyProgressBytes", .bytes(\.minBodyProgressBytes)),
            ("answerTimeout", .time(\.answerTimeout)),
            ("keepAliveTimeout", .time(\.keepAliveTimeout)),
            ("pingInterval", .time(\.pingInterval)),
            ("silenceTimeout", .time(\.silenceTimeout)),
            ("closingTimeout", .time(\.closingTimeout)),
            ("maxConnections", .optionalCount(\.maxConnections)),
            ("drainTimeout", .time(\.drainTimeout)),
            ("drainWindow", .time(\.drainWindow)),
            ("drainRate", .count(\.drainRate)),
            ("heartbeatTimeout", .time(\.heartbeatTimeout)),
        ]
    }

    /// Sets a limit from a file's text. Gives what it wants instead when the text is no value for it.
    static func set(_ kind: Kind, to text: String, in limits: inout Limits) -> String? {
        switch kind {
        case .count(let path):
            guard let value = Int(text), value > 0 else { return "a number from 1" }
            limits[keyPath: path] = value
        case .optionalCount(let path):
            if text == "auto" {
                limits[keyPath: path] = nil
            } else {
                guard let value = Int(text), value > 0 else { return "auto or a number from 1" }
                limits[keyPath: path] = value
            }
        case .bytes(let path):
            guard let value = Quantity.bytes(text) else { return "bytes from 1: a number, or one with KiB, MiB or GiB, such as 64 KiB" }
            limits[keyPath: path] = value
        case .time(let path):
            guard let value = Quantity.duration(text) else { return "a time with its unit, ms, s, min or h, such as 10 s" }
            limits[keyPath: path] = value
        case .policy(let path):
            switch text {
            case "close": limits[keyPath: path] = .close
            case "skip": limits[keyPath: path] = .skip
            default: return "close or skip"
            }
        }
        return nil
    }

    /// The limit's value as a file would write it.
    static func text(_ kind: Kind, in limits: Limits) -> String {
        switch kind {
        case .count(let path): "\(limits[keyPath: path])"
        case .optionalCount(let path): limits[keyPath: path].map(String.init) ?? "auto"
        case .bytes(let path): Quantity.text(bytes: limits[keyPath: path])
        case .time(let path): Quantity.text(limits[keyPath: path])
        case .policy(let path):
            switch limits[keyPath: path] {
            case .close: "close"
            case .skip: "skip"
            }
        }
    }
}

/// Numbers with units.
enum Quantity {
    private static let sizes = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
    private static let times: [(String, Int64)] = [("h", 3_600_000), ("min", 60_000), ("ms", 1), ("s", 1000)]

    /// `65536`, `64 KiB`, `64KiB`.
    static func bytes(_ text: String) -> Int? {
        for (unit, factor) in sizes where text.hasSuffix(unit) {
            return number(text.dropLast(unit.count)).flatMap { product(Int($0), factor) }
        }
        return number(text[...]).flatMap { Int($0) }.flatMap { $0 > 0 ? $0 : nil }
    }

    /// `10 s`, `500ms`, `2 min`, `1 h`.
    static func duration(_ text: String) -> Duration? {
        for (unit, factor) in times where text.hasSuffix(unit) {
            return number(text.dropLast(unit.count)).flatMap { product($0, factor) }
                .map { .milliseconds($0) }
        }
        return nil
    }

    /// Nil when it is not positive or does not fit.
    private static func product<Number: FixedWidthInteger>(_ number: Number, _ factor: Number) -> Number? {
        let (result, overflow) = number.multipliedReportingOverflow(by: factor)
        return overflow || result <= 0 ? nil : result
    }

    /// Digits and nothing else, with spaces around them.
    private static func number(_ text: Substring) -> Int64? {
        let digits = text.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed()
        guard !digits.isEmpty, digits.allSatisfy({ ("0"..."9").contains($0) }) else { return nil }
        return Int64(String(digits))
    }

    static func text(bytes: Int) -> String {
        for (unit, factor) in sizes where bytes % factor == 0 { return "\(bytes / factor) \(unit)" }
        return "\(bytes)"
    }

    static func text(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let milliseconds = seconds * 1000 + attoseconds / 1_000_000_000_000_000
        for (unit, factor) in [times[0], times[1], times[3]] where milliseconds % factor == 0 { return "\(milliseconds / factor) \(unit)" }
        return "\(milliseconds) ms"
    }
}
