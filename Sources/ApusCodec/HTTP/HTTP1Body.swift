/// A body that is being received.
package struct HTTP1Body: Equatable, Sendable {
    private var decoder: HTTPBodyDecoder
    private let framing: HTTPBodyFraming
    private let toleratesPadding: Bool
    /// Bytes of content so far.
    private(set) var receivedBytes = 0
    /// The same when the current period began.
    private var bytesAtPeriodStart = 0

    init(_ framing: HTTPBodyFraming, maxBytes: Int, receiver: Role) {
        self.framing = framing
        // Padding of a chunk's size could be read in two ways in a request.
        toleratesPadding = receiver == .client
        decoder = HTTPBodyDecoder(framing: framing, maxBytes: maxBytes, toleratesPadding: toleratesPadding)
    }

    /// Sets another limit.
    ///
    /// - Precondition: Nothing of the body has been decoded.
    mutating func limit(to maxBytes: Int) {
        decoder = HTTPBodyDecoder(framing: framing, maxBytes: maxBytes, toleratesPadding: toleratesPadding)
    }

    mutating func next(_ bytes: Span<UInt8>, from position: inout Int) throws(HTTPViolation) -> HTTPBodyDecoder.BodyEvent? {
        let event = try decoder.next(bytes, from: &position)
        if case .data(let range) = event { receivedBytes += range.count }
        return event
    }

    /// Notes that the peer sends no more.
    mutating func finish() throws(HTTPViolation) { try decoder.finish() }

    /// Whether at least `minBytes` have come in this period; then another one begins.
    mutating func hasProgressed(minBytes: Int) -> Bool {
        guard receivedBytes - bytesAtPeriodStart >= minBytes else { return false }
        restartPeriod()
        return true
    }

    /// From here on only what comes later counts as progress.
    mutating func restartPeriod() { bytesAtPeriodStart = receivedBytes }
}
