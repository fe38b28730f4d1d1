import ApusPlatform
import ApusSupervisor
import Glibc
import Testing
import TestSupport

@Suite("Supervisor: reload, scale, upgrade, with real processes", .serialized, .timeLimit(.minutes(2)))
struct ChangeTests {
    @Test("HUP replaces every worker on the same sockets; what connects meanwhile is served; nothing piles up over six of them")
    func reload() throws {
        let fixture = try Fixture("workers=3")
        let address = try fixture.address()
        let masterAtFirst = ProcessTable.descriptors(of: fixture.pid)
        for number in 1...6 {
            fixture.signal(SIGHUP)
            #expect(fixture.line("log notice: generation \(number) serves with 3 workers") != nil)
            let client = try Client(to: address)
            #expect(client.readPid(withinMilliseconds: 5000) != nil)
        }
        for slot in 0..<3 { #expect(fixture.pid(ofSlot: slot, generation: 7) != nil) }
        #expect(waitForLines("left ", count: 18, in: fixture))
        #expect(waitForLines("command 0 handOver(closing: [])", count: 6, in: fixture))
        #expect(holdsEventually(masterAtFirst, fixture))
        #expect(fixture.count("log warning") == 0)
        end(fixture)
    }

    @Test("an invalid configuration is one error and changes nothing")
    func invalid() throws {
        let fixture = try Fixture("workers=2", "reload=invalid")
        _ = try fixture.address()
        fixture.signal(SIGHUP)
        #expect(fixture.line("log error") == "log error: the reload changes nothing: configuration: Invalid argument")
        fixture.signal(SIGHUP)
        fixture.listen(milliseconds: 200)
        #expect(fixture.count("log error") == 2)
        #expect(fixture.count("ready ") == 2)
        end(fixture)
    }

    @Test("a generation that cannot start is given up and the present one goes on", arguments: ["failing", "exit78"])
    func stillborn(behavior: String) throws {
        let fixture = try Fixture("workers=2", "reload=\(behavior)")
        let address = try fixture.address()
        let before = ProcessTable.descriptors(of: fixture.pid)
        fixture.signal(SIGHUP)
        #expect(fixture.line("log error: the reload is given up, the present workers go on: worker ") != nil)
        fixture.listen(milliseconds: 100)
        #expect(fixture.count("command ") == 0)
        #expect(
            try Client(to: address).readPid(withinMilliseconds: 5000) == fixture.pid(ofSlot: 0, generation: 1) ?? 0
                || fixture.count("ready ") == 2)
        #expect(holdsEventually(before, fixture))
        end(fixture)
    }

    @Test("a reload waits until the generation before last has left")
    func reloadWaits() throws {
        let fixture = try Fixture("workers=1", "behavior=ignore", "drain=700")
        _ = try fixture.address()
        fixture.signal(SIGHUP)
        #expect(fixture.line("log notice: generation 1 serves") != nil)
        fixture.signal(SIGHUP)
        #expect(fixture.line("log notice: the reload waits until the last worker of the previous generation has drained") != nil)
        let place = fixture.lines.count
        #expect(fixture.line("log notice: generation 2 serves") != nil)
        #expect(fixture.lines[..<place].contains { $0.hasPrefix("left ") } == false)
        end(fixture)
    }

    @Test("a stopped worker that a reload replaces is aborted by the watchdog, and its death is logged as that")
    func stoppedDuringReload() throws {
        let fixture = try Fixture("workers=1", "heartbeat=2000")
        _ = try fixture.address()
        let worker = try #require(fixture.pid(ofSlot: 0, generation: 1))
        kill(worker, SIGSTOP)
        fixture.signal(SIGHUP)
        #expect(fixture.line("log notice: generation 1 serves") != nil)
        #expect(fixture.line("log error: worker 0 (pid \(worker)) hangs: no heartbeat for ") != nil)
        #expect(fixture.line("log warning: worker 0 (pid \(worker)) ended: aborted (killed by SIGABRT) after ") != nil)
        end(fixture)
    }

    @Test("HUP with another number of workers grows or shrinks to it", arguments: [(2, 4), (3, 1)])
    func reloadWorkers(before: Int, after: Int) throws {
        let fixture = try Fixture("workers=\(before)", "reload-workers=\(after)", "grace=200")
        let address = try fixture.address()
        fixture.signal(SIGHUP)
        #expect(fixture.line("log notice: \(after) worker") != nil)
        #expect(serving(address, in: fixture).count == after)
        end(fixture)
    }

    @Test("HUP with another address: the new one is served, one that is in use changes nothing")
    func reloadAddress() throws {
        let fixture = try Fixture("workers=2", "unix=/tmp/apus-test-\(Process.id)-reload.sock", "reload-port=0")
        let old = try fixture.address()
        fixture.signal(SIGHUP)
        let line = try #require(fixture.line("reloaded "))
        #expect(line.contains("unix:/tmp/apus-test-"))
        let port = try #require(line.split(separator: ":").last.flatMap { UInt16($0) })
        #expect(try Client(to: .ipv4(0x7F00_0002, port: port)).readPid(withinMilliseconds: 5000) != nil)
        // The old one is free once its workers have left.
        #expect(waitForLines("left ", count: 2, in: fixture))
        #expect(throws: SystemError.self) { try Client(to: old) }
        end(fixture)

        let owner = try SlotListeners(addresses: [.ipv4(0x7F00_0002, port: 0)], slots: 1)
        let taken = owner.boundAddresses[0].port ?? 0
        let other = try Fixture("workers=2", "reload-port=\(taken)")
        let address = try other.address()
        other.signal(SIGHUP)
        #expect(
            other.line("log error: the reload changes nothing: cannot listen on 127.0.0.2:\(taken): bind: Address already in use") != nil)
        #expect(try Client(to: address).readPid(withinMilliseconds: 5000) != nil)
        end(other)
    }

    @Test("TTIN and TTOU: one worker more and one less, in 50 rounds under connects none is lost")
    func scale() throws {
        let fixture = try Fixture("workers=1", "grace=300")
        let address = try fixture.address()
        var served = 0
        let before = ProcessTable.descriptors(of: fixture.pid)
        for _ in 0..<50 {
            for (signal, line) in [(SIGTTIN, "log notice: 2 workers serve"), (SIGTTOU, "log notice: 1 worker serves")] {
                let start = fixture.lines.count
                fixture.signal(signal)
                let deadline = MonotonicTime.now() + .seconds(20)
                var isDone = false
                while !isDone, MonotonicTime.now() < deadline {
                    served += connectAndRead(40, address)
                    fixture.listen(milliseconds: 1)
                    isDone = fixture.lines[start...].contains(line)
                }
                try #require(isDone)
            }
        }
        #expect(lost == 0, "\(lost) of \(served + lost)")
        #expect(served > 1000)
        #expect(waitForLines("left ", count: 50, in: fixture))
        #expect(holdsEventually(before, fixture))
        end(fixture)
    }

    @Test("TTOU never takes the last worker, TTIN stops at the most there may be")
    func bounds() throws {
        let fixture = try Fixture("workers=1", "grace=300")
        _ = try fixture.address()
        fixture.signal(SIGTTOU)
        #expect(fixture.line("log warning: SIGTTOU: there must be 1 to 6 workers") != nil)
        for _ in 0..<8 {
            fixture.signal(SIGTTIN)
            fixture.listen(milliseconds: 30)
        }
        #expect(fixture.line("log notice: 6 workers serve") != nil)
        #expect(fixture.line("log warning: SIGTTIN") != nil)
        end(fixture)
    }

    @Test("WINCH drains the workers and keeps the addresses; what connects waits for those that HUP starts")
    func park() throws {
        let fixture = try Fixture("workers=2")
        let address = try fixture.address()
        fixture.signal(SIGWINCH)
        #expect(waitForLines("left ", count: 2, in: fixture))
        let client = try Client(to: address)
        #expect(client.readPid(withinMilliseconds: 100) == nil)
        fixture.signal(SIGHUP)
        #expect(client.readPid(withinMilliseconds: 5000) != nil)
        end(fixture)
    }

    @Test("WINCH before all workers are ready waits until they are: HUP starts new ones then")
    func parkEarly() throws {
        let fixture = try Fixture("workers=2", "behavior=failing-once")
        // The next one takes 50 ms at least.
        #expect(fixture.line("log warning: worker 0 ") != nil)
        fixture.signal(SIGWINCH)
        let address = try fixture.address()
        #expect(waitForLines("left ", count: 3, in: fixture))
        let client = try Client(to: address)
        #expect(client.readPid(withinMilliseconds: 100) == nil)
        fixture.signal(SIGHUP)
        #expect(client.readPid(withinMilliseconds: 5000) != nil)
        end(fixture)
    }

    @Test("WINCH while a worker is being taken away: those that HUP starts are all given connections")
    func parkWhileShrinking() throws {
        let fixture = try Fixture("workers=2", "grace=600000")
        let address = try fixture.address()
        fixture.signal(SIGTTOU)
        #expect(fixture.line("log notice: SIGTTOU: 2 to 1 workers") != nil)
        fixture.listen(milliseconds: 100)
        fixture.signal(SIGWINCH)
        #expect(fixture.line("log error: worker 1 is not taken away: the workers were asked to drain") != nil)
        #expect(waitForLines("left ", count: 2, in: fixture))
        fixture.signal(SIGHUP)
        #expect(fixture.line("log notice: generation 1 serves with 2 workers") != nil)
        #expect(serving(address, in: fixture).count == 2)
        end(fixture)
    }

    @Test("USR2 hands the sockets to a new program; the old one ends when all workers of the new one accept")
    func upgrade() throws {
        let fixture = try Fixture("workers=2", "program=\(Fixture.path)")
        let address = try fixture.address()
        fixture.signal(SIGUSR2)
        #expect(fixture.line("upgrading done") != nil)
        #expect(fixture.masterEnd() == .exited(0))
        #expect(try Client(to: address).readPid(withinMilliseconds: 5000) != nil)
        let pid = try #require(newMaster(of: fixture))
        kill(pid, SIGTERM)
        #expect(fixture.everybodyGone(within: 5))
        #expect(throws: SystemError.self) { try Client(to: address) }
    }

    @Test(
        "a new program that cannot start, dies or never gets ready: the old one goes on, alone",
        arguments: [
            ["program=/nowhere/apus"], ["program=/bin/false"], ["program=\(Fixture.path)", "upgrade=failing"],
            ["program=\(Fixture.path)", "upgrade=silent", "upgrade-timeout=500"],
        ])
    func failedUpgrade(arguments: [String]) throws {
        let fixture = try Fixture(arguments: ["workers=2"] + arguments)
        let address = try fixture.address()
        let before = ProcessTable.descriptors(of: fixture.pid)
        for _ in 0..<2 {
            let place = fixture.lines.count
            fixture.signal(SIGUSR2)
            #expect(fixture.line("log error: the upgrade is given up, this program goes on: ", from: place) != nil)
            #expect(try Client(to: address).readPid(withinMilliseconds: 5000) != nil)
        }
        // Only workers of the new program got orders.
        #expect(fixture.lines.allSatisfy { !$0.hasPrefix("command ") || $0.hasSuffix("masterDied") })
        #expect(holdsEventually(before, fixture))
        end(fixture)
    }

    @Test("TERM in the middle of an upgrade: no process stays behind")
    func termDuringUpgrade() throws {
        let fixture = try Fixture("workers=2", "program=\(Fixture.path)", "upgrade=silent")
        _ = try fixture.address()
        fixture.signal(SIGUSR2)
        #expect(fixture.line("log notice: the new program has pid") != nil)
        fixture.listen(milliseconds: 50)
        fixture.signal(SIGTERM)
        #expect(fixture.everybodyGone(within: 8))
        #expect(fixture.masterEnd() == .exited(0))
    }

    @Test("the old program is killed in the middle of an upgrade: the new one is the owner")
    func killDuringUpgrade() throws {
        let fixture = try Fixture("workers=2", "program=\(Fixture.path)")
        let address = try fixture.address()
        fixture.signal(SIGUSR2)
        let line = try #require(fixture.line("log notice: the new program has pid"))
        fixture.signal(SIGKILL)
        let pid = try #require(line.split(separator: " ").last.flatMap { Int32($0) })
        #expect(fixture.count("up ") >= 1)
        _ = fixture.line("up ", from: fixture.lines.firstIndex { $0 == line } ?? 0)
        #expect(try Client(to: address).readPid(withinMilliseconds: 5000) != nil)
        kill(pid, SIGTERM)
        #expect(fixture.everybodyGone(within: 7))
    }

    @Test("a worker that is stuck when its master dies does not keep the port, and ends")
    func stuckOrphan() throws {
        let fixture = try Fixture("workers=2", "behavior=hang", "orphan=1000")
        let address = try fixture.address()
        fixture.listen(milliseconds: 100)  // both hang now
        fixture.signal(SIGKILL)
        let deadline = MonotonicTime.now() + .milliseconds(1000)
        var isFree = false
        while !isFree, MonotonicTime.now() < deadline {
            isFree = (try? SlotListeners(addresses: [address], slots: 1)) != nil
        }
        #expect(isFree, "the stuck workers keep \(address)")
        #expect(fixture.everybodyGone(within: 5))
    }

    // MARK: Support

    private func end(_ fixture: Fixture) {
        fixture.signal(SIGTERM)
        #expect(fixture.everybodyGone(within: 5))
        #expect(fixture.masterEnd() == .exited(0))
    }

    private func waitForLines(_ prefix: String, count: Int, in fixture: Fixture) -> Bool {
        let deadline = MonotonicTime.now() + .seconds(10)
        while fixture.count(prefix) < count, MonotonicTime.now() < deadline { fixture.listen(milliseconds: 10) }
        return fixture.count(prefix) == count
    }

    /// Waits until the master has these descriptors: it may still be busy with what it has logged.
    private func holdsEventually(_ descriptors: [String], _ fixture: Fixture) -> Bool {
        let deadline = MonotonicTime.now() + .seconds(5)
        while ProcessTable.descriptors(of: fixture.pid) != descriptors, MonotonicTime.now() < deadline { fixture.listen(milliseconds: 5) }
        return ProcessTable.descriptors(of: fixture.pid) == descriptors
    }

    /// The processes that answer.
    private func serving(_ address: SocketAddress, in fixture: Fixture) -> Set<Int32> {
        Set((0..<200).compactMap { _ in try? Client(to: address).readPid(withinMilliseconds: 5000) })
    }

    private func newMaster(of fixture: Fixture) -> Int32? {
        fixture.line("log notice: the new program (pid ")?.split(separator: " ")[6].dropLast().split(separator: ")").first
            .flatMap { Int32($0) }
    }

    private final class Losses { var count = 0 }
    private let losses = Losses()
    private var lost: Int { losses.count }

    /// Connects many times at once, then reads the answers; counts those that were answered.
    private func connectAndRead(_ count: Int, _ address: SocketAddress) -> Int {
        let clients = (0..<count).compactMap { _ in try? Client(to: address) }
        let answered = clients.count { $0.readPid(withinMilliseconds: 5000) != nil }
        losses.count += count - answered
        return answered
    }
}
