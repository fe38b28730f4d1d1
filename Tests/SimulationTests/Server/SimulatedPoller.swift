import ApusPlatform
import TestSupport
import Glibc

/// The time of all loops of one simulation. It passes only when nothing else can happen.
final class SimulatedClock {
    var now = MonotonicTime(milliseconds: 1_000_000)
}

/// A poller that never waits: it asks the kernel what is ready, and holds readiness back, reorders it and makes some up, as its seed says.
final class SimulatedPoller: Poller {
    private struct Watched {
        let descriptor: Int32
        var interest: Interest
        let token: UInt
        /// How often its readiness was held back in succession.
        var delays = 0
    }

    private let clock: SimulatedClock
    private var random: SeededGenerator
    /// In the order of `add`, so that equal seeds give equal runs.
    private var watched: [Watched] = []
    /// When the loop wanted to be woken at its last wait; nil: never.
    private(set) var deadline: MonotonicTime?

    /// A ready descriptor is reported after so many held-back reports at the latest.
    private static let mostDelays = 4

    init(_ clock: SimulatedClock, seed: UInt64) {
        self.clock = clock
        random = SeededGenerator(seed: seed)
    }

    var descriptors: [Int32] { [] }

    func now() -> MonotonicTime { clock.now }

    func add(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError) {
        watched.append(Watched(descriptor: descriptor, interest: interest, token: token))
    }

    func update(_ descriptor: Int32, for interest: Interest, token: UInt) throws(SystemError) {
        guard let index = watched.firstIndex(where: { $0.descriptor == descriptor }) else {
            throw SystemError(code: ENOENT, call: "update")
        }
        watched[index].interest = interest
    }

    func remove(_ descriptor: Int32) { watched.removeAll { $0.descriptor == descriptor } }

    func wait(until deadline: MonotonicTime?, into events: UnsafeMutableBufferPointer<PollEvent>) throws(SystemError) -> Int {
        self.deadline = deadline
        var due: [PollEvent] = []
        for (index, state) in poll().enumerated() {
            let one = watched[index]
            if state.isEmpty {
                let isSpurious = !one.interest.isEmpty && UInt8.random(in: 0..<64, using: &random) == 0
                if isSpurious {
                    due.append(PollEvent(token: one.token, readiness: Readiness(rawValue: one.interest.rawValue & 0x5)))
                }
            } else if one.delays < Self.mostDelays, UInt8.random(in: 0..<4, using: &random) == 0 {
                watched[index].delays += 1
            } else {
                watched[index].delays = 0
                due.append(PollEvent(token: one.token, readiness: state))
            }
        }
        due.shuffle(using: &random)
        for (index, event) in due.enumerated() { events[index] = event }
        return due.count
    }

    /// Whether something is ready, held back or not.
    var hasReady: Bool { poll().contains { !$0.isEmpty } }

    private func poll() -> [Readiness] {
        var states = watched.map {
            pollfd(fd: $0.descriptor, events: Int16(truncatingIfNeeded: $0.interest.subtracting(.exclusive).rawValue), revents: 0)
        }
        Glibc.poll(&states, nfds_t(states.count), 0)
        return states.map { Readiness(rawValue: UInt32(UInt16(bitPattern: $0.revents))) }
    }
}
