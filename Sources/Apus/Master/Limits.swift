import ApusCodec
import ApusPlatform

/// Limits and timeouts per peer and per worker. All are on by default and enforced in every worker.
public struct Limits: Sendable {
    /// Bytes of a request head; a larger one is answered with 431.
    public var maxRequestHeadBytes = 16 * 1024
    /// Bytes of a request target; a longer one is answered with 414.
    public var maxRequestTargetBytes = 8 * 1024
    /// Fields of a request head; more are answered with 431.
    public var maxRequestFields = 100
    /// Bytes of a request body; a larger one is answered with 413.
    public var maxRequestBodyBytes = 1 << 20
    /// Bytes of a WebSocket message; a larger one is closed with 1009.
    public var maxMessageBytes = 1 << 20
    /// A message must grow by `minMessageProgressBytes` in each period of this length until it
    /// ends; otherwise the WebSocket is closed with 1008. Applies to messages that are assembled.
    public var messageProgressTimeout = Duration.seconds(10)
    /// Bytes per `messageProgressTimeout`. Keeps slow senders from holding memory.
    public var minMessageProgressBytes = 1024
    /// Bytes of queued output per WebSocket; a send beyond it closes the WebSocket with 1013. One
    /// message may exceed it.
    public var maxBufferedBytes = 1 << 20
    /// Bytes buffered by one worker for all its connections: incomplete messages and request
    /// bodies, unconsumed input and queued output. Beyond it, a WebSocket that needs more is closed
    /// with 1013, a request whose body needs more is answered with 503, and no more output is
    /// queued for peers that have some. Input of a paused reader, at most 128 KiB each, is counted
    /// but never refused. `EncodedMessage` is not counted, and neither are messages that arrive
    /// whole or leave at once.
    public var maxWorkerBufferBytes = 256 << 20
    /// How a publication treats a subscriber with more than `maxBufferedBytes` queued.
    public var slowSubscribers = SlowSubscribers.close
    /// Subscriptions per WebSocket.
    public var maxSubscriptions = 64
    /// From the accept to the end of the TLS handshake.
    public var tlsHandshakeTimeout = Duration.seconds(10)
    /// From the first byte of a request, or the accept, to the end of its head.
    public var requestHeadTimeout = Duration.seconds(10)
    /// The period in which `minBodyProgressBytes` of a request's body must arrive, or of a
    /// response's be sent.
    public var bodyTimeout = Duration.seconds(10)
    /// Bytes per `bodyTimeout`. Keeps slow peers from holding connections.
    public var minBodyProgressBytes = 1024
    /// From the end of a request to its response; then the exchange is answered with 504.
    public var answerTimeout = Duration.seconds(30)
    /// Between a response and the next request.
    public var keepAliveTimeout = Duration.seconds(60)
    /// Silence of a WebSocket peer before a ping is sent. Any byte ends the silence.
    public var pingInterval = Duration.seconds(30)
    /// Silence of a WebSocket peer before the connection is closed with 1006. More than
    /// `pingInterval`.
    public var silenceTimeout = Duration.seconds(60)
    /// From this side's close frame to the peer's.
    public var closingTimeout = Duration.seconds(5)
    /// Connections per worker; more wait in the listen queue, and connections without a request
    /// half a second after the accept are evicted for them. Nil: the limit on descriptors, less a
    /// reserve for the worker.
    public var maxConnections: Int?
    /// From SIGQUIT to the forced end of open connections.
    public var drainTimeout = Duration.seconds(30)
    /// The time over which a draining worker spreads the closes of its WebSockets, so that not all
    /// clients reconnect at once.
    public var drainWindow = Duration.seconds(2)
    /// WebSockets that a draining worker closes per second at most; it may exceed `drainWindow`.
    public var drainRate = 10_000
    /// A worker whose loop has not turned for this long is aborted and replaced. At least 100 ms.
    public var heartbeatTimeout = Duration.seconds(10)

    /// See `slowSubscribers`.
    public enum SlowSubscribers: Sendable, Hashable {
        /// The subscriber is closed with 1013.
        case close
        /// The subscriber misses the publication, and its handler's `missed` is called.
        case skip
    }

    public init() {}

    /// The shortest heartbeat is 10 ms, and a loaded machine delays loops.
    private static let leastHeartbeatTimeout = Duration.milliseconds(100)

    /// A limit that contradicts another one or a fixed bound.
    struct Contradiction {
        /// The name of the refused limit.
        let limit: String
        /// *expected X, got Y*, in the units of a configuration file.
        let reason: String
        /// The name of the limit it contradicts; nil: a fixed bound.
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

    /// The limits of a server with several processes that contradict each other or a fixed bound.
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
            // Otherwise a silent peer is closed without a ping.
            let expected = "more than pingInterval, \(Quantity.text(pingInterval))"
            found.append(
                Contradiction(
                    limit: "silenceTimeout", reason: "expected \(expected), got \(Quantity.text(silenceTimeout))", other: "pingInterval"))
        }
        return found
    }

    /// Checks the limits of a server with several processes.
    ///
    /// - Throws: `ConfigurationError.limit` for the first contradiction.
    func check() throws(ConfigurationError) {
        if let first = contradictions.first { throw first.error }
    }

    var http1: HTTP1Limits {
        var limits = HTTP1Limits()
        limits.head = HTTPHeadLimits(
            maxHeadBytes: maxRequestHeadBytes, maxTargetBytes: maxRequestTargetBytes, maxFields: maxRequestFields)
        limits.maxBodyBytes = maxRequestBodyBytes
        limits.headTimeout = requestHeadTimeout.wholeMilliseconds
        limits.bodyTimeout = bodyTimeout.wholeMilliseconds
        limits.minBodyProgressBytes = minBodyProgressBytes
        limits.keepAliveTimeout = keepAliveTimeout.wholeMilliseconds
        limits.answerTimeout = answerTimeout.wholeMilliseconds
        return limits
    }
}
