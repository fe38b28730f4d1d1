import ApusPlatform
import ApusSupervisor
import Glibc
import Testing
import TestSupport

@Suite("Supervisor with real processes", .serialized, .timeLimit(.minutes(2)))
struct SupervisorTests {
    @Test("a killed worker is replaced at once, time and again, and nothing piles up")
    func killedAgainAndAgain() throws {
        let fixture = try Fixture("workers=4")
        _ = try fixture.address()
        var victim = try #require(fixture.pid(ofSlot: 0, generation: 1))
        let masterAtFirst = ProcessTable.descriptors(of: fixture.pid)
        let workerAtFirst = ProcessTable.descriptors(of: victim)
        #expect(workerAtFirst.count { $0 == "anon_inode:[eventpoll]" } == 1)
        #expect(workerAtFirst.count { $0 == "anon_inode:[signalfd]" } == 1)
        #expect(workerAtFirst.count { $0 == "anon_inode:[pidfd]" } == 0)
        // The master has four listeners and four channels, the worker one of each; the test runner may hand down more to both.
        #expect(masterAtFirst.count { $0 == "socket" } - workerAtFirst.count { $0 == "socket" } == 6)

        var gaps: [UInt64] = []
        for generation in 2...6 {
            fixture.listen(milliseconds: 250)  // longer than the shortest time between two forks
            let killed = MonotonicTime.now()
            kill(victim, SIGKILL)
            victim = try #require(fixture.pid(ofSlot: 0, generation: generation))
            gaps.append(MonotonicTime.now().millisecondsSince(killed))
        }
        #expect(gaps.sorted()[2] <= 50, "ms until the successor was ready: \(gaps)")
        #expect(fixture.count("log warning: worker 0") == 5)
        #expect(fixture.line("log warning: worker 0")?.hasSuffix("starting the next at once") == true)
        #expect(ProcessTable.descriptors(of: fixture.pid) == masterAtFirst)
        #expect(ProcessTable.descriptors(of: victim) == workerAtFirst)
        #expect(fixture.count("ready 1 ") == 1, "the other slot is untouched")
        try end(fixture, with: SIGTERM, expecting: "stop")
    }

    @Test("what is connected while a slot has no worker is served by the successor")
    func queuedConnect() throws {
        let fixture = try Fixture("workers=1")
        let address = try fixture.address()
        let worker = try #require(fixture.pid(ofSlot: 0, generation: 1))
        kill(worker, SIGSTOP)  // accepts no more
        let clients = try (0..<50).map { _ in try Client(to: address) }
        kill(worker, SIGKILL)
        let successor = try #require(fixture.pid(ofSlot: 0, generation: 2))
        for client in clients { #expect(client.readPid(withinMilliseconds: 10_000) == successor) }
    }

    @Test("a worker in an endless callback is found by its heartbeat and replaced")
    func hangs() throws {
        let fixture = try Fixture("workers=2", "behavior=hang-once", "heartbeat=300")
        _ = try fixture.address()
        let line = try #require(fixture.line("log error: worker 0"))
        #expect(line.contains("hangs: no heartbeat for 0.3 s, phase handler: sending SIGABRT"))
        #expect(fixture.pid(ofSlot: 0, generation: 2) != nil)
        #expect(fixture.line("log warning: worker 0")?.contains("killed by SIGABRT") == true)
        #expect(fixture.count("ready 1 ") == 1)
    }

    @Test("a worker that sends an unknown record is killed, logged once, and replaced")
    func babbles() throws {
        let fixture = try Fixture("workers=2", "behavior=babble-once")
        _ = try fixture.address()
        let pid = try #require(fixture.pid(ofSlot: 0, generation: 1))
        #expect(fixture.pid(ofSlot: 0, generation: 2) != nil)
        #expect(
            fixture.lines.filter { $0.hasPrefix("log error") } == [
                "log error: worker 0 (pid \(pid)) sent an unknown record: sending SIGKILL"
            ])
        #expect(fixture.line("log warning: worker 0")?.contains("ended: killed by SIGKILL after") == true)
        try end(fixture, with: SIGTERM, expecting: "stop")
    }

    @Test("a worker that floods its control channel costs the master little, and keeps it from nothing")
    func floods() throws {
        let fixture = try Fixture("workers=2", "behavior=flood-once", "stop=300")
        _ = try fixture.address()
        let pid = try #require(fixture.pid(ofSlot: 0, generation: 1))
        let other = try #require(fixture.pid(ofSlot: 1, generation: 1))
        let before = try (ProcessTable.processorTime(fixture.pid), ProcessTable.processorTime(pid))
        fixture.listen(milliseconds: 1000)
        let master = try ProcessTable.processorTime(fixture.pid) - before.0
        let worker = try ProcessTable.processorTime(pid) - before.1
        #expect(worker > .milliseconds(100), "it does not flood")
        #expect(master < worker / 4, "processor time: master \(master), worker \(worker)")
        kill(other, SIGKILL)
        #expect(fixture.pid(ofSlot: 1, generation: 2) != nil)
        fixture.signal(SIGTERM)
        #expect(fixture.everybodyGone(within: 5))
    }

    @Test("a stopped worker is replaced, and not only after the grace of a second")
    func stopped() throws {
        let fixture = try Fixture("workers=1", "heartbeat=300")
        _ = try fixture.address()
        let start = MonotonicTime.now()
        kill(try #require(fixture.pid(ofSlot: 0, generation: 1)), SIGSTOP)
        #expect(fixture.pid(ofSlot: 0, generation: 2) != nil)
        #expect(MonotonicTime.now().millisecondsSince(start) < 800)
    }

    @Test("a master that was stopped does not take its workers for stuck")
    func masterStopped() throws {
        // A worker that was stopped together with its master (Ctrl-Z) has an old heartbeat, through no fault of its own.
        let fixture = try Fixture("workers=2", "heartbeat=300")
        _ = try fixture.address()
        kill(-fixture.pid, SIGSTOP)
        fixture.listen(milliseconds: 2000)
        kill(-fixture.pid, SIGCONT)
        fixture.listen(milliseconds: 1000)
        #expect(fixture.count("log error") == 0)
        try end(fixture, with: SIGTERM, expecting: "stop")
    }

    @Test("a crash loop of the first generation: back-off, then the master gives up and says why")
    func crashLoop() throws {
        let fixture = try Fixture("workers=2", "behavior=failing")
        #expect(fixture.everybodyGone(within: 15))
        #expect(fixture.masterEnd() == .exited(1))
        #expect(fixture.lines.last?.hasPrefix("error worker ") == true)
        #expect(fixture.lines.last?.hasSuffix("does not start: exit 3 (the database is on fire)") == true)
        let deaths = fixture.lines.filter { $0.hasPrefix("log warning: worker 0") }
        #expect((4...6).contains(deaths.count))
        #expect(deaths[0].contains("starting the next in "))
    }

    @Test("exit 78 at the start: no second attempt")
    func doNotRestart() throws {
        let fixture = try Fixture("workers=1", "behavior=exit78")
        #expect(fixture.everybodyGone(within: 5))
        #expect(fixture.masterEnd() == .exited(1))
        #expect(fixture.lines.last == "error worker 0 does not start: exit 78")
        #expect(fixture.count("log debug: worker 0") == 1)
    }

    @Test("once the server has been up it never gives up, though no worker can be started any more")
    func neverGivesUp() throws {
        // Slot 0's successors all crash, slot 1's too, but slot 1's first process lives on.
        let fixture = try Fixture("workers=2", "behavior=crash-later")
        _ = try fixture.address()
        let good = try #require(fixture.pid(ofSlot: 1, generation: 1))
        fixture.listen(milliseconds: 250)
        kill(try #require(fixture.pid(ofSlot: 0, generation: 1)), SIGKILL)
        while fixture.count("log warning: worker 0") < 5 {
            try #require(fixture.line("log warning: worker 0", from: fixture.lines.count) != nil)
        }
        #expect(kill(good, 0) == 0)
        kill(good, SIGKILL)
        while fixture.count("log warning: worker 1") < 5 {
            try #require(fixture.line("log warning: worker 1", from: fixture.lines.count) != nil)
        }
        #expect(fixture.count("error ") == 0)
        // No worker is left to get an order, and the master ends.
        fixture.signal(SIGTERM)
        #expect(fixture.everybodyGone(within: 5))
        #expect(fixture.masterEnd() == .exited(0))
    }

    @Test("a worker that never gets ready is aborted")
    func silent() throws {
        let fixture = try Fixture("workers=1", "behavior=silent", "start=300")
        #expect(fixture.line("log error: worker 0")?.contains("is not ready after 0.3 s") == true)
        #expect(fixture.line("log warning: worker 0")?.contains("killed by SIGABRT") == true)
    }

    @Test("when the master is killed its workers notice and end, restarted ones too")
    func masterKilled() throws {
        let fixture = try Fixture("workers=4")
        let address = try fixture.address()
        kill(try #require(fixture.pid(ofSlot: 1, generation: 1)), SIGKILL)
        _ = try #require(fixture.pid(ofSlot: 1, generation: 2))
        fixture.signal(SIGKILL)
        #expect(fixture.everybodyGone(within: 1))
        #expect(fixture.count("command ") == 4)
        #expect(fixture.line("command 1 ") == "command 1 masterDied")
        // A new master can start at once.
        _ = try SlotListeners(addresses: [address], slots: 2)
    }

    @Test("an orphan that drains for ever is ended by its own clock")
    func deafOrphan() throws {
        let fixture = try Fixture("workers=1", "behavior=deaf", "orphan=300")
        _ = try fixture.address()
        fixture.signal(SIGKILL)
        #expect(fixture.everybodyGone(within: 2))
    }

    @Test("TERM and INT stop, QUIT drains", arguments: [(SIGTERM, "stop"), (SIGINT, "stop"), (SIGQUIT, "drain")])
    func ordered(signal: Int32, command: String) throws {
        let fixture = try Fixture("workers=3")
        _ = try fixture.address()
        try end(fixture, with: signal, expecting: command)
    }

    @Test("Ctrl-C reaches the whole group, yet each worker gets one order, from the master")
    func controlC() throws {
        let fixture = try Fixture("workers=2")
        _ = try fixture.address()
        kill(-fixture.pid, SIGINT)
        #expect(fixture.everybodyGone(within: 5))
        #expect(fixture.masterEnd() == .exited(0))
        #expect(fixture.count("command ") == 2)
    }

    @Test("a worker that ignores drain is killed at the deadline")
    func ignoresDrain() throws {
        let fixture = try Fixture("workers=1", "behavior=ignore", "drain=300")
        _ = try fixture.address()
        fixture.signal(SIGQUIT)
        #expect(fixture.everybodyGone(within: 5))
        #expect(fixture.masterEnd() == .exited(0))
        #expect(
            fixture.line("log warning: worker 0")?.contains("did not end in time, phase waiting, 0 connections left: sending SIGKILL")
                == true)
    }

    @Test("a second order during the drain makes it fast")
    func termDuringDrain() throws {
        let fixture = try Fixture("workers=1", "behavior=ignore", "drain=60000", "stop=200")
        _ = try fixture.address()
        fixture.signal(SIGQUIT)
        #expect(fixture.line("command 0 drain") != nil)
        fixture.signal(SIGTERM)
        #expect(fixture.line("command 0 stop") != nil)
        #expect(fixture.everybodyGone(within: 5))
        #expect(fixture.masterEnd() == .exited(0))
    }

    @Test(
        "a signal to a worker's own pid commands it, too, and it is replaced",
        arguments: [(SIGTERM, "stop"), (SIGQUIT, "handOver(closing: [])")])
    func signalToWorker(signal: Int32, command: String) throws {
        let fixture = try Fixture("workers=1")
        _ = try fixture.address()
        kill(try #require(fixture.pid(ofSlot: 0, generation: 1)), signal)
        #expect(fixture.line("command 0 ") == "command 0 \(command)")
        #expect(fixture.pid(ofSlot: 0, generation: 2) != nil)
    }

    @Test("without a program to start, USR2 is logged and changes nothing")
    func noProgram() throws {
        let fixture = try Fixture("workers=1")
        _ = try fixture.address()
        kill(-fixture.pid, SIGUSR2)
        #expect(fixture.line("log warning") == "log warning: SIGUSR2: this server cannot start a new program")
        try end(fixture, with: SIGTERM, expecting: "stop")
        #expect(fixture.count("ready ") == 1)
    }

    @Test("a trap ends a worker by its signal: the runtime's backtracer, inherited from the master, does not get in")
    func trap() throws {
        let fixture = try Fixture("workers=1", "behavior=trap-once", environment: ["SWIFT_BACKTRACE=enable=yes,color=no"])
        _ = try fixture.address()
        let line = try #require(fixture.line("log warning: worker 0"))
        #expect(line.contains("killed by SIGILL") || line.contains("killed by SIGTRAP"))
        #expect(fixture.pid(ofSlot: 0, generation: 2) != nil)
        #expect(!fixture.lines.contains { $0.contains("Backtrace") || $0.contains("Crash:") })
    }

    @Test(
        "a line on standard error is the reason of a trap that follows at once, not of a later one",
        arguments: [(10, "trap: a log line (killed by SIGILL) after "), (1500, "trap (killed by SIGILL) after ")])
    func lineBeforeTrap(milliseconds: Int, expected: String) throws {
        let fixture = try Fixture("workers=1", "behavior=silent-trap-once", "trap=\(milliseconds)")
        _ = try fixture.address()
        #expect(fixture.line("log warning: worker 0")?.contains("ended: \(expected)") == true, "\(fixture.lines)")
        #expect(fixture.pid(ofSlot: 0, generation: 2) != nil)
    }

    @Test("a second server on the port, or on the socket file, is refused with the reason")
    func portInUse() throws {
        let path = "/tmp/apus-test-\(Process.id)-\(UInt32.random(in: 0...(.max))).sock"
        let first = try Fixture("workers=2", "unix=\(path)")
        let address = try first.address()
        let second = try Fixture("workers=2", "port=\(address.port ?? 0)")
        #expect(second.everybodyGone(within: 1))
        #expect(second.masterEnd() == .exited(1))
        #expect(second.lines == ["error cannot listen on \(address): bind: Address already in use"])
        let third = try Fixture("workers=2", "unix=\(path)")
        #expect(third.line("error") == "error cannot listen on unix:\(path): bind: Address already in use")
        #expect(FileSystem.isSocket(path))
        try end(first, with: SIGTERM, expecting: "stop")
        #expect(!FileSystem.isSocket(path))
    }

    @Test("of masters that start together on one port exactly one gets it")
    func startTogether() throws {
        let free = try SlotListeners(addresses: [.ipv4(0x7F00_0001, port: 0)], slots: 1)
        let port = free.boundAddresses[0].port ?? 0
        free.close()
        let rivals = try (0..<6).map { _ in try Fixture("workers=2", "port=\(port)") }
        let winners = rivals.filter { rival in
            while rival.line("up ") == nil, !rival.isAtEnd {}
            return rival.count("up ") == 1
        }
        #expect(winners.count == 1)
    }

    /// Sends a signal: each worker gets `command` once, and all processes end, the master with status 0.
    private func end(_ fixture: Fixture, with signal: Int32, expecting command: String) throws {
        fixture.signal(signal)
        #expect(fixture.everybodyGone(within: 5))
        #expect(fixture.masterEnd() == .exited(0))
        #expect(fixture.lines.last == "ended")
        let commands = fixture.lines.filter { $0.hasPrefix("command ") }
        #expect(Set(commands).count == commands.count)
        #expect(commands.allSatisfy { $0.hasSuffix(command) })
    }
}
