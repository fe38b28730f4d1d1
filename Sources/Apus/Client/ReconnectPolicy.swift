import ApusCodec

/// When a client reconnects. Each pause is a random part of a delay that doubles with each failure
/// ("full jitter"), so that clients do not reconnect all at once after a server has failed.
public struct ReconnectPolicy: Sendable, Hashable {
    /// The longest first pause.
    public var baseDelay = Duration.seconds(1)
    /// The longest pause, unless the server requests a longer one.
    public var maxDelay = Duration.seconds(60)
    /// Consecutive attempts that may fail before the client stops; nil: any number.
    public var maxAttempts: Int?
    /// The range of the pause after close code 1012, service restart (IANA: "a randomized delay of
    /// 5 - 30s").
    public var restartDelay = Duration.seconds(5)...Duration.seconds(30)
    /// The longest `Retry-After` that is honoured.
    public var maxRetryAfter = Duration.seconds(600)
    /// A connection that was open this long resets the doubling.
    public var resetAfter = Duration.seconds(10)

    public init() {}
}

/// The state of a client's reconnect policy.
struct Backoff {
    /// Why the client reconnects.
    enum Cause: Equatable {
        /// An attempt failed, with the response's `Retry-After` if any.
        case failed(retryAfter: Duration?)
        /// An open connection ended.
        case closed(CloseCode, wasOpenFor: Duration)
    }

    let policy: ReconnectPolicy
    /// Consecutive attempts that failed.
    private(set) var failures = 0

    init(_ policy: ReconnectPolicy) { self.policy = policy }

    /// The pause before the next attempt; nil: the policy allows no more.
    ///
    /// - Parameter random: 0 to 1.
    mutating func pause(after cause: Cause, random: Double) -> Duration? {
        switch cause {
        case .failed(let retryAfter):
            failures += 1
            if let most = policy.maxAttempts, failures >= most { return nil }
            return max(jittered(random), min(retryAfter ?? .zero, policy.maxRetryAfter))
        case .closed(let code, let time):
            if time >= policy.resetAfter { failures = 0 } else { failures += 1 }
            if let most = policy.maxAttempts, failures >= most { return nil }
            switch code {
            case .serviceRestart:
                let (low, high) = (policy.restartDelay.lowerBound, policy.restartDelay.upperBound)
                return low + (high - low) * random
            // The server is overloaded: start at the longest delay.
            case .tryAgainLater: return policy.maxDelay / 2 + policy.maxDelay / 2 * random
            default: return jittered(random)
            }
        }
    }

    /// A random part of the current delay.
    private func jittered(_ random: Double) -> Duration {
        var longest = policy.baseDelay
        for _ in 0..<max(0, failures - 1) where longest < policy.maxDelay { longest *= 2 }
        return min(longest, policy.maxDelay) * random
    }

    /// Whether to reconnect after this close code: the server left or the network failed. After any
    /// other code the next connection would end the same way.
    static func isWorthwhile(_ code: CloseCode) -> Bool {
        switch code {
        case .goingAway, .abnormal, .internalError, .serviceRestart, .tryAgainLater: true
        // Bad gateway.
        case CloseCode(rawValue: 1014): true
        default: false
        }
    }

    /// Whether another attempt may succeed after this error.
    static func isWorthwhile(_ error: ConnectError) -> Bool {
        switch error {
        case .name, .connect, .closed, .timeout: true
        case .proxy(_, let head): head.map { isTransient($0.status) } ?? true
        case .handshake(.status(let status), _): isTransient(status)
        case .address, .request, .tls, .certificate, .malformedAnswer, .handshake, .extensions, .redirect, .refused, .body, .cancelled,
            .workerEnding:
            false
        }
    }

    private static func isTransient(_ status: HTTPStatus) -> Bool {
        switch status.code {
        case 408, 425, 429, 500...599: true
        default: false
        }
    }

    /// The value of `Retry-After` (RFC 9110 §10.2.3), seconds or a date; nil if absent or invalid.
    ///
    /// - Parameter now: seconds since 1970.
    static func retryAfter(_ head: HTTPResponseHead?, now: Int) -> Duration? {
        guard let text = head?.fields["retry-after"] else { return nil }
        if !text.isEmpty, text.utf8.count <= 9, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) {
            return Int(text).map { .seconds($0) }
        }
        return HTTPDate.parse(text).map { .seconds(max(0, $0 - now)) }
    }
}
