/// What an HTTP/1.1 connection waits for, which decides how long it may last.
enum HTTP1Period: Equatable {
    case head, body, keepAlive, answer

    /// The period that runs in the given states; nil: nothing is due.
    ///
    /// - Parameters:
    ///   - isWaiting: Whether output waits for the peer.
    ///   - pauses: While a body is not read, the time does not count against its sender.
    init?(_ request: HTTP1RequestSide, _ response: HTTP1ResponseSide, isWaiting: Bool, pauses: PauseReasons) {
        let period: HTTP1Period? =
            switch (request, response) {
            case (.idle(let wait), .idle): Self.untilRequest(wait, isWaiting: isWaiting)
            case (.receivingHead(_, let wait), _): Self.untilRequest(wait, isWaiting: isWaiting)
            case (.receivingBody, .awaited(let exchange)) where exchange.expectsContinue: .answer
            case (.receivingBody, .sendingBody) where !pauses.isEmpty: isWaiting ? .body : nil
            case (.receivingBody, _), (_, .receivingBody), (_, .received): pauses.isEmpty ? .body : nil
            // The application has not completed the request: only what it has sent can be late.
            case (.sendingBody, .awaited), (.sendingBody, .receivingHead): isWaiting ? .body : nil
            case (_, .awaited(let exchange)), (_, .receivingHead(_, let exchange)): exchange.isProlonged ? .body : .answer
            case (_, .sendingBody), (.sendingBody, _): isWaiting ? .body : nil
            case (.idle, _), (.received, _), (.done, _), (.mightSwitch, _), (.switched, _), (.mustClose, _), (.closed, _), (.failed, _),
                (.modifying, _):
                nil
            }
        guard let period else { return nil }
        self = period
    }

    private static func untilRequest(_ wait: HTTP1RequestSide.Wait, isWaiting: Bool) -> HTTP1Period {
        switch wait {
        case .first, .begun: .head
        case .next: isWaiting ? .body : .keepAlive
        case .prolonged: .body
        }
    }

    /// How long it may last, in milliseconds.
    func length(_ limits: borrowing HTTP1Limits) -> UInt64 {
        switch self {
        case .head: limits.headTimeout
        case .body: limits.bodyTimeout
        case .keepAlive: limits.keepAliveTimeout
        case .answer: limits.answerTimeout
        }
    }
}
