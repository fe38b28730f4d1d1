import ApusCodec

/// What one peer may use, and how long it may take. Every limit is on by default and enforced in every worker.
public struct Limits: Sendable {
    /// Bytes of a request head; more is answered with 431.
    public var maxRequestHeadBytes = 16 * 1024
    /// Bytes of a request target; more is answered with 414.
    public var maxRequestTargetBytes = 8 * 1024
    /// Fields of a request head; more is answered with 431.
    public var maxRequestFields = 100
    /// Bytes of a request body; more is answered with 413.
    public var maxRequestBodyBytes = 1 << 20
    /// Bytes of a WebSocket message; more closes with 1009.
    public var maxMessageBytes = 1 << 20
    /// A message that has begun must grow by `minMessageProgressBytes` in each period of this length until it ends; otherwise the WebSocket is
    /// closed with 1008. Only for messages that are assembled.
    public var messageProgressTimeout = Duration.seconds(10)
    /// Bytes, see `messageProgressTimeout`. A peer that sends one byte now and then holds no memory for long.
    public var minMessageProgressBytes = 1024
    /// Bytes of output that may wait for a peer before another send closes the WebSocket with 1013. One message may pass it.
    public var maxBufferedBytes = 1 << 20
    /// Bytes that one worker holds for all its connections: messages and request bodies that have not come whole, what was read and not used,
    /// and output that waits. Beyond it, a WebSocket that wants more of it is closed with 1013, and a request whose body does is answered with
    /// 503; who has output waiting is sent nothing more. What was read while its reader is paused (at most 128 KiB) is counted, not refused;
    /// an `EncodedMessage` belongs to the application and is not counted. What comes whole and leaves at once needs none of it.
    public var maxWorkerBufferBytes = 256 << 20
    /// What becomes of a subscriber with more than `maxBufferedBytes` waiting when something is published to it.
    public var slowSubscribers = SlowSubscribers.close
    /// Topics of one WebSocket.
    public var maxSubscriptions = 64
    /// From the accept to the end of the TLS handshake.
    public var tlsHandshakeTimeout = Duration.seconds(10)
    /// From the first byte of a request, or the accept, to the end of its head.
    public var requestHeadTimeout = Duration.seconds(10)
    /// In which `minBodyProgressBytes` of a request's body must arrive, or of a response's depart.
    public var bodyTimeout = Duration.seconds(10)
    /// Bytes, see `bodyTimeout`. A peer that sends or takes one byte now and then does not hold its connection for long.
    public var minBodyProgressBytes = 1024
    /// From the end of a request to its answer; later, the exchange is answered with 504.
    public var answerTimeout = Duration.seconds(30)
    /// Between a response and the next request.
    public var keepAliveTimeout = Duration.seconds(60)
    /// Silence after which a WebSocket peer is sent a ping. Any byte counts as life.
    public var pingInterval = Duration.seconds(30)
    /// Silence after which a WebSocket is given up with 1006.
    public var silenceTimeout = Duration.seconds(60)
    /// From our close frame to the peer's.
    public var closingTimeout = Duration.seconds(5)
    /// Connections of one worker; more wait in the listen queue, and who has not made a request half a second after it came has to make room
    /// for them. Nil: what the limit on descriptors allows, less some for the worker itself.
    public var maxConnections: Int?
    /// From SIGQUIT to the hard end of what is still open.
    public var drainTimeout = Duration.seconds(30)
    /// WebSockets are closed one by one over this window when a worker drains, so that not all clients reconnect at once.
    public var drainWindow = Duration.seconds(2)
    /// WebSockets that a draining worker closes per second at most, however many there are: the window is exceeded then.
    public var drainRate = 10_000
    /// A worker whose loop has not turned for this long is aborted and replaced.
    public var heartbeatTimeout = Duration.seconds(10)

    /// See `slowSubscribers`.
    public enum SlowSubscribers: Sendable, Hashable {
        /// It is closed with 1013.
        case close
        /// It misses the publication, and its handler's `missed` is told.
        case skip
    }

    public init() {}

    /// Nothing beats faster than every 10 ms, and a loaded machine lets a loop wait.
    private static let leastHeartbeatTimeout = Duration.milliseconds(100)

    /// A limit that does not hold together with another one, or with what a server can do.
    struct Contradiction {
        /// The name of the limit whose value is refused.
        let limit: String
        /// *expected X, got Y*, in the units of a configuration file.
        let reason: String
        /// The name of the limit that it is compared with; nil: a fixed bound.
        var other: String?

        var error: ConfigurationError { .limit(limit, reason) }
    }

    private static var counts: [(name: String, path: KeyPath<Limits, Int>)] {
        [
            ("maxRequestHeadBytes", \.maxRequestHeadBytes), ("maxRequestTargetBytes", \.maxRequestTargetBytes),
            ("maxRequestFields", \.maxRequestFields), ("maxRequestBodyBytes", \.maxRequestBodyBytes),
            ("maxMessageBytes", \.maxMessageBytes), ("minMessageProgressBytes", \.minMessageProgressBytes),
            ("maxBufferedBytes", \.maxBufferedBytes), ("maxWorkerBufferBytes", \.maxWorkerBufferBytes),
            ("maxSubscriptions", \.maxSubscriptions), ("minBodyProgressBytes", \.minBodyProgressBytes), ("drainRate", \.drainRate),
        ]
    }

    private static var times: [(name: String, path: KeyPath<Limits, Duration>)] {
        [
            ("messageProgressTimeout", \.messageProgressTimeout), ("tlsHandshakeTimeout", \.tlsHandshakeTimeout),
            ("requestHeadTimeout", \.requestHeadTimeout), ("bodyTimeout", \.bodyTimeout), ("answerTimeout", \.answerTimeout),
            ("keepAliveTimeout", \.keepAliveTimeout), ("pingInterval", \.pingInterval), ("silenceTimeout", \.silenceTimeout),
            ("closingTimeout", \.closingTimeout), ("drainTimeout", \.drainTimeout),
        ]
    }

    /// What keeps the limits of a server with several processes from holding together.
    var contradictions: [Contradiction] {
        var found: [Contradiction] = []
        for (name, path) in Self.counts where self[keyPath: path] < 1 {
            found.append(Contradiction(limit: name, reason: "expected at least 1, got \(self[keyPath: path])"))
        }
        if let most = maxConnections, most < 1 {
            found.append(
                Contradiction(limit: "maxConnections", reason: "expected at least 1, or nil for what descriptors allow, got \(most)"))
        }
        for (name, path) in Self.times where self[keyPath: path] <= .zero {
            found.append(Contradiction(limit: name, reason: "expected more than 0, got \(self[keyPath: path])"))
        }
        if drainWindow < .zero { found.append(Contradiction(limit: "drainWindow", reason: "expected a time from 0, got \(drainWindow)")) }
        if heartbeatTimeout < Self.leastHeartbeatTimeout {
            let expected = "at least \(Quantity.text(Self.leastHeartbeatTimeout))"
            found.append(Contradiction(limit: "heartbeatTimeout", reason: "expected \(expected), got \(Quantity.text(heartbeatTimeout))"))
        }
        for (name, least) in [("maxMessageBytes", maxMessageBytes), ("maxBufferedBytes", maxBufferedBytes)]
        where maxWorkerBufferBytes < least {
            let expected = "at least \(name), \(Quantity.text(bytes: least))"
            found.append(
                Contradiction(
                    limit: "maxWorkerBufferBytes", reason: "expected \(expected), got \(Quantity.text(bytes: maxWorkerBufferBytes))",
                    other: name))
        }
        if silenceTimeout <= pingInterval {
            // A quiet peer would be given up without a ping.
            let expected = "more than pingInterval, \(Quantity.text(pingInterval))"
            found.append(
                Contradiction(
                    limit: "silenceTimeout", reason: "expected \(expected), got \(Quantity.text(silenceTimeout))", other: "pingInterval"))
        }
        return found
    }

    /// Checks that limits of a server with several processes can hold together.
    ///
    /// - Throws: `ConfigurationError.limit`.
    func check() throws(ConfigurationError) {
        if let first = contradictions.first { throw first.error }
    }

    var head: HTTPHeadLimits {
        HTTPHeadLimits(maxHeadBytes: maxRequestHeadBytes, maxTargetBytes: maxRequestTargetBytes, maxFields: maxRequestFields)
    }
}
