import Apus

// What every load does with its context.
extension Context {
    /// Handshakes in progress at once: a listen queue is finite.
    private static var connecting: Int { 256 }

    /// Opens connections until there are `count`.
    ///
    /// - Parameter failure: what has gone wrong so far: the first ends it.
    func openAll(
        count: Int, opened: () -> Int, failure: () -> RuntimeFailure?, progress: (Int) -> Void, start: () -> Void
    ) throws {
        let deadline = ContinuousClock.now + .seconds(20)
        var started = 0
        while opened() < count {
            while started < count, started - opened() < Self.connecting {
                started += 1
                start()
            }
            try service(timeout: .milliseconds(100))
            if let failure = failure() { throw failure }
            if ContinuousClock.now > deadline { throw RuntimeFailure("only \(opened()) of \(count) connections opened in 20 s") }
            progress(opened())
        }
    }

    /// Serves for some seconds and gives how long it really took.
    ///
    /// - Parameter failure: what makes the measurement worthless, if anything has.
    func serve(for seconds: Double, failure: () -> RuntimeFailure?, progress: (Double) -> Void) throws -> Double {
        let start = ContinuousClock.now
        let end = start + .seconds(seconds)
        while ContinuousClock.now < end {
            try service(timeout: min(.milliseconds(100), end - .now))
            if let failure = failure() { throw failure }
            progress((end - .now) / .seconds(1))
        }
        return (ContinuousClock.now - start) / .seconds(1)
    }

    /// Closes connections and waits a moment for their answers.
    func closeAll(_ sockets: [WebSocket]) {
        for socket in sockets { socket.close() }
        let deadline = ContinuousClock.now + .seconds(2)
        while connectionCount > 0, ContinuousClock.now < deadline { try? service(timeout: .milliseconds(100)) }
    }
}
