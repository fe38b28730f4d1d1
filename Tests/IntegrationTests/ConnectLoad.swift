import Glibc
import Synchronization
import TestSupport

/// A connection that ended before it was answered.
struct Loss: Sendable, CustomStringConvertible {
    /// The client's end, which was nobody else's from `began` to `ended`.
    let end: SocketTable.End
    let began: ContinuousClock.Instant
    let ended: ContinuousClock.Instant
    let how: RawClient.Failure

    var description: String { "\(end): \(how) after \(ended - began)" }
}

/// Clients that connect, ask and leave, without a pause.
final class ConnectLoad: Sendable {
    struct Seen {
        var answered = 0
        var failures: [String] = []
        /// What ended unanswered. Whether a server may be blamed for it, only its workers' killer can tell: see `StoppedWorkers`.
        var lost: [Loss] = []
        var slowest = Duration.zero
        /// When the slowest one began.
        var slowestAt = ContinuousClock.now
    }

    let seen = Mutex(Seen())
    private let stop = Flag()
    private let path: String

    init(path: String = "/worker") { self.path = path }

    func end() { stop.set() }

    func forgetSlowest() { seen.withLock { $0.slowest = .zero } }

    /// Waits until so many more connections have come to an end.
    @discardableResult
    func goOn(for count: Int, within duration: Duration = .seconds(10)) -> Bool {
        func ends() -> Int { seen.withLock { $0.answered + $0.lost.count + $0.failures.count } }
        let before = ends()
        return Deadline(after: duration).wait { ends() - before >= count }
    }

    /// - Parameter number: each client at one time has another, and by it an address to itself. So its ends name one connection at a time.
    func run(against port: UInt16, as number: Int) {
        while !stop.isSet {
            let started = ContinuousClock.now
            do {
                let client = try RawClient(source: UInt8(100 + number), timeout: .seconds(20))
                ask(client, at: port, started)
            } catch {
                seen.withLock { $0.failures.append("\(error)") }
            }
        }
    }

    private func ask(_ client: RawClient, at port: UInt16, _ started: ContinuousClock.Instant) {
        do {
            try client.connect(to: port)
            client.resetOnClose()
            let status = try client.request("GET \(path)").status
            seen.withLock {
                $0.answered += 1
                let took = ContinuousClock.now - started
                if took > $0.slowest { ($0.slowest, $0.slowestAt) = (took, started) }
                if status != 200 { $0.failures.append("\(client.localEnd): status \(status)") }
            }
        } catch let failure as RawClient.Failure where failure.isEnd {
            let loss = Loss(end: client.localEnd, began: started, ended: .now, how: failure)
            seen.withLock { $0.lost.append(loss) }
        } catch {
            seen.withLock { $0.failures.append("\(client.localEnd): \(error)") }
        }
    }
}
