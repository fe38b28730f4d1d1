import Apus

/// The properties of `Limits` by name, for the configuration file and `apus check`.
enum LimitSettings {
    enum Kind {
        case count(WritableKeyPath<Limits, Int>)
        /// A count or `auto`.
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

    /// The expected form of a limit's text.
    static func form(of kind: Kind) -> String {
        switch kind {
        case .count: "a number from 1"
        case .optionalCount: "auto or a number from 1"
        case .bytes: "bytes from 1: a number, or one with KiB, MiB or GiB, such as 64 KiB"
        case .time: "a time with its unit, ms, s, min or h, such as 10 s"
        case .policy: "close or skip"
        }
    }

    /// Sets a limit from its text.
    ///
    /// - Returns: Whether the text has the expected form.
    static func set(_ kind: Kind, to text: String, in limits: inout Limits) -> Bool {
        switch kind {
        case .count(let path):
            guard let value = Int(text), value > 0 else { return false }
            limits[keyPath: path] = value
        case .optionalCount(let path):
            if text == "auto" {
                limits[keyPath: path] = nil
            } else {
                guard let value = Int(text), value > 0 else { return false }
                limits[keyPath: path] = value
            }
        case .bytes(let path):
            guard let value = Quantity.bytes(text) else { return false }
            limits[keyPath: path] = value
        case .time(let path):
            guard let value = Quantity.duration(text) else { return false }
            limits[keyPath: path] = value
        case .policy(let path):
            switch text {
            case "close": limits[keyPath: path] = .close
            case "skip": limits[keyPath: path] = .skip
            default: return false
            }
        }
        return true
    }

    /// The limit's value in the form of the file.
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
