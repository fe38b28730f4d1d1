import ApusCodec

/// When a client connects again: after a random part of a time that doubles with each failure ("full jitter"), so that the clients of a
/// server that has gone do not come back all at once.
public struct ReconnectPolicy: Sendable, Hashable {
    /// The longest first pause.
    public var baseDelay = Duration.seconds(1)
    /// No pause is longer, unless the server asks for one.
    public var maxDelay = Duration.seconds(60)
    /// Attempts in a row that may fail before it is given up; nil: any number.
    public var maxAttempts: Int?
    /// The pause after a server has closed with 1012, service restart (IANA: "a randomized delay of 5 - 30s").
    public var restartDelay = Duration.seconds(5)...Duration.seconds(30)
    /// A `Retry-After` of an answer is kept up to this.
    public var maxRetryAfter = Duration.seconds(600)
    /// A connection that was open for so long has succeeded: the doubling begins anew.
    public var resetAfter = Duration.seconds(10)

    public init() {}
}

/// Where a client stands in its policy.
struct Backoff {
    /// Why it has to connect again.
    enum Cause: Equatable {
        /// An attempt failed; the answer, if any, asked to wait so long.
        case failed(retryAfter: Duration?)
        /// An open connection ended.
        case closed(CloseCode, wasOpenFor: Duration)
    }

    let policy: ReconnectPolicy
    /// Attempts in a row that failed.
    private(set) var failures = 0

    init(_ policy: ReconnectPolicy) { self.policy = policy }

    /// The pause before the next attempt; nil: it is given up.
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
            // The server has too much to do: the doubling is skipped.
            case .tryAgainLater: return policy.maxDelay / 2 + policy.maxDelay / 2 * random
            default: return jittered(random)
            }
        }
    }

    /// A random part of the longest pause now.
    private func jittered(_ random: Double) -> Duration {
        var longest = policy.baseDelay
        for _ in 0..<max(0, failures - 1) where longest < policy.maxDelay { longest *= 2 }
        return min(longest, policy.maxDelay) * random
    }

    /// Whether a connection that ended with this code is worth opening again: the server left, or the network did. Others would end alike.
    static func isWorthwhile(_ code: CloseCode) -> Bool {
        switch code {
        case .goingAway, .abnormal, .internalError, .serviceRestart, .tryAgainLater: true
        // Bad gateway.
        case CloseCode(rawValue: 1014): true
        default: false
        }
    }

    /// Whether an attempt that failed so may succeed later.
    static func isWorthwhile(_ error: ConnectError) -> Bool {
        switch error {
        case .name, .connect, .closed, .timeout: true
        case .proxy(_, let head): head.map { isTransient($0.status) } ?? true
        case .handshake(.status(let status), _): isTransient(status)
        case .address, .request, .tls, .certificate, .malformedAnswer, .handshake, .extensions, .redirect, .refused, .body, .cancelled,
            .contextEnding:
            false
        }
    }

    private static func isTransient(_ status: HTTPStatus) -> Bool {
        switch status.code {
        case 408, 425, 429, 500...599: true
        default: false
        }
    }

    /// What `Retry-After` says (RFC 9110 §10.2.3): seconds, or a date.
    static func retryAfter(_ head: HTTPResponseHead?, now: Int) -> Duration? {
        guard let text = head?.fields["retry-after"] else { return nil }
        if !text.isEmpty, text.utf8.count <= 9, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) {
            return Int(text).map { .seconds($0) }
        }
        return HTTPDate.parse(text).map { .seconds(max(0, $0 - now)) }
    }
}
