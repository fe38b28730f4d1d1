import ApusPlatform
import Testing
import TestSupport

/// Notes when it fired.
final class Probe: TimerNode {
    let name: Int
    var fired: [MonotonicTime] = []
    init(_ name: Int = 0) { self.name = name }
    override func timerFired(at now: MonotonicTime) { fired.append(now) }
}

@Suite("Timer wheel")
struct TimerWheelTests {
    static func time(_ milliseconds: UInt64) -> MonotonicTime { MonotonicTime(milliseconds: milliseconds) }

    /// Takes everything that is due; the names in the order of firing.
    static func drain(_ wheel: inout TimerWheel, at now: MonotonicTime) -> [Int] {
        var names: [Int] = []
        while let node = wheel.takeDue(now: now) {
            node.timerFired(at: now)
            names.append((node as? Probe)?.name ?? -1)
        }
        return names
    }

    @Test(
        "a deadline fires at its millisecond, not one before, whatever its distance",
        arguments: [
            1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 262_143, 262_144, 1 << 24, 1 << 30, 1 << 31, (1 << 31) + 1, 1 << 36,
            1 << 37,
        ]
            as [UInt64], [0, 1, 63, 64, 1_000_003, (1 << 36) - 1] as [UInt64])
    func exact(distance: UInt64, start: UInt64) {
        var wheel = TimerWheel(now: Self.time(start))
        let node = Probe()
        wheel.schedule(node, at: Self.time(start + distance))
        // Follow the wheel's own wake-ups, as the loop does: none may fire early, and none may be missed.
        var wakes = 0
        while let wake = wheel.nextWake(), wake < Self.time(start + distance) {
            #expect(wheel.takeDue(now: wake) == nil)
            wakes += 1
            try? #require(wakes < 200)
        }
        #expect(wheel.nextWake() == Self.time(start + distance))
        #expect(wheel.takeDue(now: Self.time(start + distance - 1)) == nil)
        #expect(wheel.takeDue(now: Self.time(start + distance)) === node)
        #expect(!node.isScheduled && wheel.count == 0 && wheel.nextWake() == nil)
    }

    @Test("0 and what has passed fire at once", arguments: [0, 499, 500] as [UInt64])
    func past(deadline: UInt64) {
        var wheel = TimerWheel(now: Self.time(500))
        let node = Probe()
        wheel.schedule(node, at: Self.time(deadline))
        #expect(wheel.nextWake() == Self.time(500))
        #expect(wheel.takeDue(now: Self.time(500)) === node)
    }

    @Test(
        "2^63 ms and the end of time wait, and are looked at again at most once in half a year",
        arguments: [1 << 63, .max] as [UInt64])
    func farAway(deadline: UInt64) {
        var wheel = TimerWheel(now: Self.time(123_456))
        let node = Probe()
        wheel.schedule(node, at: Self.time(deadline))
        var last = Self.time(123_456)
        for _ in 0..<20 {
            guard let wake = wheel.nextWake() else { break }
            #expect(wake > last && wake <= Self.time(deadline))
            #expect(wake.millisecondsSince(last) >= 1 << 30)
            #expect(wheel.takeDue(now: wake) == nil)
            last = wake
        }
        #expect(node.isScheduled && wheel.count == 1)
        wheel.cancel(node)
        #expect(wheel.nextWake() == nil)
    }

    @Test("one late look fires all that is due, earliest first")
    func order() {
        var wheel = TimerWheel(now: Self.time(10))
        let deadlines: [UInt64] = [5000, 11, 70, 300_000, 12, 4106, 9, 64, 1 << 25]
        for (name, deadline) in deadlines.enumerated() { wheel.schedule(Probe(name), at: Self.time(deadline)) }
        let expected = deadlines.indices.sorted { deadlines[$0] < deadlines[$1] }
        #expect(Self.drain(&wheel, at: Self.time(1 << 26)) == expected)
    }

    @Test("cancelled nodes do not fire; neighbours in the same slot do")
    func cancel() {
        var wheel = TimerWheel(now: Self.time(0))
        let nodes = (0..<5).map(Probe.init)
        for node in nodes { wheel.schedule(node, at: Self.time(100)) }
        for name in [0, 2, 4] { wheel.cancel(nodes[name]) }
        wheel.cancel(nodes[2])  // twice
        #expect(wheel.count == 2)
        #expect(Set(Self.drain(&wheel, at: Self.time(100))) == [1, 3])
    }

    @Test("scheduling again moves the one deadline, to earlier or later")
    func reschedule() {
        var wheel = TimerWheel(now: Self.time(0))
        let node = Probe()
        wheel.schedule(node, at: Self.time(1_000_000))
        wheel.schedule(node, at: Self.time(5))
        #expect(wheel.nextWake() == Self.time(5) && wheel.count == 1)
        wheel.schedule(node, at: Self.time(50))
        #expect(Self.drain(&wheel, at: Self.time(49)).isEmpty)
        #expect(Self.drain(&wheel, at: Self.time(2_000_000)) == [0])
    }

    @Test("a due node may cancel and re-arm others and itself while the wheel is being emptied")
    func changeWhileFiring() throws {
        var wheel = TimerWheel(now: Self.time(0))
        let nodes = (0..<3).map(Probe.init)
        for node in nodes { wheel.schedule(node, at: Self.time(7)) }
        let first = try #require(wheel.takeDue(now: Self.time(7)) as? Probe)
        let others = nodes.filter { $0 !== first }
        wheel.cancel(others[0])
        wheel.schedule(others[1], at: Self.time(8))
        wheel.schedule(first, at: Self.time(7))  // at once again
        #expect(Self.drain(&wheel, at: Self.time(7)) == [first.name])
        #expect(Self.drain(&wheel, at: Self.time(8)) == [others[1].name])
        #expect(wheel.count == 0)
    }

    @Test("the wheel holds its nodes while they wait, and only then")
    func ownership() {
        weak var waiting: Probe?
        weak var cancelled: Probe?
        weak var left: Probe?
        do {
            var wheel = TimerWheel(now: Self.time(0))
            do {
                let nodes = (0..<3).map(Probe.init)
                for node in nodes { wheel.schedule(node, at: Self.time(1)) }
                wheel.cancel(nodes[1])
                wheel.schedule(nodes[2], at: Self.time(1 << 40))
                (waiting, cancelled, left) = (nodes[0], nodes[1], nodes[2])
            }
            #expect(waiting != nil && cancelled == nil && left != nil)
            _ = Self.drain(&wheel, at: Self.time(1))
            #expect(waiting == nil)
        }
        #expect(left == nil)
    }

    @Test("random steps against a sorted array", arguments: 0..<60 as Range<UInt64>)
    func model(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var now = UInt64.random(in: 0...(1 << 40), using: &random)
        var wheel = TimerWheel(now: Self.time(now))
        let nodes = (0..<40).map(Probe.init)
        var model: [Int: UInt64] = [:]

        for _ in 0..<2000 {
            let node = nodes.randomElement(using: &random) ?? nodes[0]
            switch UInt8.random(in: 0..<10, using: &random) {
            case 0..<5:
                let distance = UInt64.random(in: 0..<(1 << UInt64.random(in: 0...38, using: &random)), using: &random)
                wheel.schedule(node, at: Self.time(now + distance))
                model[node.name] = now + distance
            case 5:
                wheel.cancel(node)
                model[node.name] = nil
            default:
                // Sometimes as the loop goes, sometimes late by any amount.
                let wake = wheel.nextWake()?.milliseconds
                let earliest = model.values.min()
                #expect((wake ?? .max) <= max(earliest ?? .max, now), "late, seed \(seed)")
                now =
                    Bool.random(using: &random)
                    ? max(now, wake ?? now)
                    : now + UInt64.random(in: 0..<(1 << UInt64.random(in: 0...34, using: &random)), using: &random)
                let fired = Self.drain(&wheel, at: Self.time(now))
                let due = model.filter { $0.value <= now }
                #expect(Set(fired) == Set(due.keys) && fired.count == due.count, "seed \(seed)")
                for name in due.keys { model[name] = nil }
            }
            #expect(wheel.count == model.count, "seed \(seed)")
        }
        #expect(nodes.allSatisfy { $0.isScheduled == (model[$0.name] != nil) })
        for node in nodes { wheel.cancel(node) }
    }
}
