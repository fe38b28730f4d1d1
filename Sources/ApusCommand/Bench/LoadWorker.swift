import Apus

// Shared by all loads.
extension Worker {
    /// Simultaneous handshakes, limited because a listen queue is finite.
    private static var connecting: Int { 256 }

    /// Opens connections until there are `count`.
    ///
    /// - Parameter failure: the first failure so far; it ends the opening.
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
            if ContinuousClock.now > deadline { throw RuntimeFailure("connections: expected \(count) within 20 s, got \(opened())") }
            progress(opened())
        }
    }

    /// Serves for some seconds.
    ///
    /// - Parameter failure: why the measurement is invalid, if it is.
    /// - Returns: the seconds that it took.
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

    /// Closes connections and waits at most 2 s for the peers' close frames.
    func closeAll(_ sockets: [WebSocket]) {
        for socket in sockets { socket.close() }
        let deadline = ContinuousClock.now + .seconds(2)
        while connectionCount > 0, ContinuousClock.now < deadline { try? service(timeout: .milliseconds(100)) }
    }
}
