import ApusPlatform

/// The exchange under way on a connection, and those before it whose output is not sent yet.
struct CurrentExchange {
    /// Not held before its response begins, so that its release without a response is noticed.
    private(set) weak var exchange: HTTPExchange?
    /// The same exchange if it has a handler, or its response has begun.
    private(set) var held: HTTPExchange?
    /// Exchanges whose response is written but for what is buffered.
    private var completing: [HTTPExchange] = []
    private var wantsWritable = false

    /// The application has the exchange.
    mutating func lend(_ exchange: HTTPExchange) { self.exchange = exchange }

    /// The session keeps the exchange.
    mutating func hold(_ exchange: HTTPExchange) { (self.exchange, held) = (exchange, exchange) }

    /// The application has released the exchange.
    mutating func released() { exchange = nil }

    mutating func requestWritable() { wantsWritable = true }

    /// Whether `outputSent` would call something.
    var awaitsOutput: Bool { wantsWritable || !completing.isEmpty }

    /// The response is written.
    ///
    /// - Returns: whether `outputSent` is to be called when nothing is buffered.
    mutating func finish() -> Bool {
        exchange = nil
        wantsWritable = false
        guard let held else { return false }
        completing.append(held)
        self.held = nil
        return true
    }

    /// Takes the exchanges that are complete, and the one whose `writable` is due, because nothing
    /// is buffered.
    mutating func takeDue() -> (complete: [HTTPExchange], writable: HTTPExchange?) {
        let due = (completing, wantsWritable ? exchange : nil)
        (completing, wantsWritable) = ([], false)
        return due
    }

    /// Takes all exchanges, because the connection ends.
    mutating func takeAll() -> (written: [HTTPExchange], current: HTTPExchange?) {
        let all = (completing, exchange)
        (completing, held, exchange) = ([], nil, nil)
        return all
    }
}
