import Glibc
import TestSupport
import Testing

/// Connections to `/broadcast`, with the worker that each one sits on.
private final class Audience {
    struct Member {
        let client: RawClient
        let slot: Int
    }

    let server: ApusServer
    private(set) var members: [Member] = []

    init(_ server: ApusServer) { self.server = server }

    /// The slot and process that serve a connection; nil if it died on the way.
    private static func place(_ client: RawClient) throws -> (slot: Int, pid: pid_t)? {
        let text = try client.request("GET /worker").text
        guard let slot = text.firstMatch(of: /"slot":(\d+)/).flatMap({ Int($0.output.1) }),
            let pid = text.firstMatch(of: /"pid":(\d+)/).flatMap({ pid_t($0.output.1) })
        else { return nil }
        return (slot, pid)
    }

    /// Opens connections until `slots` have `each` at least; gives the process of each slot. On one connection `/worker` is asked first and then
    /// the WebSocket opened, so that both are known to be the same worker's.
    @discardableResult
    func fill(slots: Set<Int>, each: Int) throws -> [Int: pid_t] {
        var pids: [Int: pid_t] = [:]
        let deadline = Deadline(after: .seconds(20))
        while !slots.allSatisfy({ slot in members.count { $0.slot == slot } >= each && pids[slot] != nil }) {
            if deadline.hasPassed { throw TestFailure("only slots \(members.map(\.slot)) were reached") }
            let client = try server.connect()
            guard let place = try Self.place(client) else { throw TestFailure("no worker") }
            pids[place.slot] = place.pid
            guard slots.contains(place.slot), members.count(where: { $0.slot == place.slot }) < each else { continue }
            try client.upgrade(path: "/broadcast")
            // What it hears of itself, it has subscribed to.
            let token = "hello \(client.localPort)"
            try client.send(RawFrame.text(token))
            while try client.frame().text != token {}
            members.append(Member(client: client, slot: place.slot))
        }
        return pids
    }

    func drop(slot: Int) { members.removeAll { $0.slot == slot } }

    /// Reads each member's messages up to `end`, without those of members that came.
    func messages(upTo end: String) throws -> [[String]] {
        try members.map { member in
            var texts: [String] = []
            while true {
                let text = try member.client.frame().text
                if text == end { return texts }
                if !text.hasPrefix("hello ") { texts.append(text) }
            }
        }
    }

    /// Everything by one sender, in the order received.
    static func by(_ sender: Int, in texts: [String]) -> [Int] {
        texts.compactMap { text in
            let words = text.split(separator: " ")
            return words.count >= 2 && words[0] == "\(sender)" ? Int(words[1]) : nil
        }
    }
}

extension Integration {
    @Suite("One protocol, every worker")
    struct Bus {
        @Test(
            "10,000 publications, from each worker in turn, reach every connection once and in their sender's order",
            .timeLimit(.minutes(2)))
        func everyWorker() async throws {
            try await onThread {
                let server = try ApusServer(workers: 4, "--log-level", "error")
                let audience = Audience(server)
                try audience.fill(slots: [0, 1, 2, 3], each: 2)
                let members = audience.members
                let started = ContinuousClock.now
                var sent = Array(repeating: 0, count: members.count)
                for round in 0..<100 {
                    for index in 0..<100 {
                        let sender = (round * 100 + index) % members.count
                        try members[sender].client.send(RawFrame.text("\(sender) \(sent[sender])"))
                        sent[sender] += 1
                    }
                    // An end mark of each sender, so that nothing is under way between rounds.
                    for sender in members.indices {
                        try members[sender].client.send(RawFrame.text("\(sender) \(sent[sender])")); sent[sender] += 1
                    }
                    for (reader, member) in members.enumerated() {
                        var seen: [Int: Int] = [:]
                        for _ in 0..<100 + members.count {
                            var text = try member.client.frame().text
                            while text.hasPrefix("hello ") { text = try member.client.frame().text }
                            let words = text.split(separator: " ")
                            let (sender, number) = (Int(words[0]) ?? -1, Int(words[1]) ?? -1)
                            if let last = seen[sender], number != last + 1 {
                                throw TestFailure("reader \(reader): \(number) of \(sender) after \(last)")
                            }
                            seen[sender] = number
                        }
                        for sender in members.indices where seen[sender] != sent[sender] - 1 {
                            throw TestFailure("reader \(reader) in round \(round): \(seen) of \(sent)")
                        }
                    }
                }
                print(
                    "bus: \(sent.reduce(0, +)) publications to \(members.count) connections on 4 workers in \(ContinuousClock.now - started)"
                )
                #expect(sent.reduce(0, +) >= 10_000)
                #expect(try server.end() == .exited(0))
            }
        }

        @Test(
            "workers killed under publication: survivors miss nothing of survivors, nothing comes twice, successors join in",
            .timeLimit(.minutes(2)))
        func killed() async throws {
            try await onThread {
                let server = try ApusServer(workers: 4, "--log-level", "error")
                let audience = Audience(server)
                var next = Array(repeating: 0, count: 4)
                var expected = Array(repeating: 0, count: 4)
                for round in 0..<12 {
                    let pids = try audience.fill(slots: [0, 1, 2, 3], each: 1)
                    let victim = round % 4
                    expected = next
                    let members = audience.members
                    for index in 0..<400 {
                        if index == 200, let pid = pids[victim] { kill(pid, SIGKILL) }
                        for member in members {
                            do {
                                try member.client.send(RawFrame.text("\(member.slot) \(next[member.slot])"))
                            } catch  where member.slot == victim { continue }
                            next[member.slot] += 1
                        }
                    }
                    audience.drop(slot: victim)
                    let survivors = audience.members
                    for member in survivors { try member.client.send(RawFrame.text("end \(round) \(member.slot)")) }
                    for reader in survivors {
                        var ends = 0
                        var texts: [String] = []
                        while ends < survivors.count {
                            let text = try reader.client.frame().text
                            if text.hasPrefix("end \(round) ") { ends += 1 } else { texts.append(text) }
                        }
                        for sender in survivors.map(\.slot) {
                            let numbers = Audience.by(sender, in: texts)
                            let isWhole = numbers == Array(expected[sender]..<next[sender])
                            #expect(isWhole, "round \(round): \(reader.slot) got \(numbers.count) of \(sender)")
                        }
                        // Of the killed one: a beginning, in order and once, if not from the very first.
                        let numbers = Audience.by(victim, in: texts)
                        let isBeginning = numbers == Array(expected[victim]..<expected[victim] + numbers.count)
                        #expect(
                            isBeginning && numbers.count <= next[victim] - expected[victim],
                            "round \(round): \(numbers.count) of the killed")
                    }
                }
                #expect(try server.end() == .exited(0))
            }
        }

        @Test(
            "a worker stopped for 3 s under load: the others go on, and it hears of later publications and of its gap",
            .timeLimit(.minutes(2)))
        func stopped() async throws {
            try await onThread {
                let server = try ApusServer(workers: 4, "--log-level", "warning")
                let audience = Audience(server)
                let pids = try audience.fill(slots: [0, 1, 2, 3], each: 1)
                guard let victim = audience.members.first(where: { $0.slot == 3 }), let pid = pids[3],
                    let sender = audience.members.first(where: { $0.slot == 0 }),
                    let other = audience.members.first(where: { $0.slot == 1 })
                else { throw TestFailure("no members") }
                audience.drop(slot: 2)
                let filler = String(repeating: "x", count: 60_000)
                var latencies: [Bool: [Duration]] = [true: [], false: []]
                var number = 0
                var seen: [Int] = []
                func exchange(isStopped: Bool) throws {
                    let text = "0 \(number) \(filler)"
                    number += 1
                    let started = ContinuousClock.now
                    try sender.client.send(RawFrame.text(text))
                    // A newcomer's greeting may come before it.
                    while try other.client.frame().text != text {}
                    latencies[isStopped]?.append(.now - started)
                    while try sender.client.frame().text != text {}
                    if isStopped { return }
                    while try victim.client.frame().text != text {}
                    seen.append(number - 1)
                }
                let going = Deadline(after: .seconds(2))
                while !going.hasPassed || number < 200 { try exchange(isStopped: false) }
                kill(pid, SIGSTOP)
                guard Deadline(after: .seconds(5)).wait(until: { ["T", "t"].contains(ProcessTable.entry(pid)?.state) }) else {
                    throw TestFailure("\(pid) does not stop")
                }
                let stopped = Deadline(after: .seconds(3))
                while !stopped.hasPassed || latencies[true]?.count ?? 0 < 1000 { try exchange(isStopped: true) }
                kill(pid, SIGCONT)
                // Its connection, which takes what it is given, gets what waited, each once and in order; it is not closed as a slow one.
                victim.client.timeout = .seconds(20)
                var lastLater: Int?
                var count = 0
                while lastLater == nil {
                    // What is said while there is no room yet is lost as well.
                    if count % 32 == 0 { try sender.client.send(RawFrame.text("later \(count / 32)")) }
                    count += 1
                    let frame = try victim.client.frame()
                    if frame.text.hasPrefix("later ") { lastLater = Int(frame.text.dropFirst(6)) }
                    guard frame.opcode == 1 else { throw TestFailure("after SIGCONT: \(frame.opcode) \(frame.closeCode ?? 0)") }
                    let words = frame.text.prefix(20).split(separator: " ")
                    if words.count >= 2, words[0] == "0", let number = Int(words[1]) { seen.append(number) }
                }
                let isRising = zip(seen, seen.dropFirst()).allSatisfy { $0 < $1 }
                #expect(isRising && seen.first == 0)
                let lost = number - seen.count + (lastLater ?? 0)
                func dropped() -> Int {
                    server.process.standardError.matches(of: /worker 3 did not read in time: (\d+) records of worker 0 were/).compactMap {
                        Int($0.output.1)
                    }
                    .reduce(0, +)
                }
                #expect(lost > 0 && Deadline(after: .seconds(10)).wait { dropped() >= lost }, "\(lost): \(server.process.standardError)")
                #expect(dropped() == lost)
                // And the worker serves on: who comes now hears what is said on another one.
                audience.drop(slot: 3)
                try audience.fill(slots: [3], each: 1)
                try sender.client.send(RawFrame.text("at last"))
                if let newcomer = audience.members.last { while try newcomer.client.frame().text != "at last" {} }
                let before = try percentile(latencies[false]), during = try percentile(latencies[true])
                print(
                    "bus: worker stopped for 3 s: \(number) publications, \(lost) not seen, \(dropped()) told as a gap; p99 \(before) before, \(during) while"
                )
                // Twice as long at most, and some room for what else the machine does.
                #expect(during < before * 2 + .milliseconds(10))
                #expect(try server.end() == .exited(0))
            }
        }

        private func percentile(_ latencies: [Duration]?) throws -> Duration {
            guard let sorted = latencies?.sorted(), !sorted.isEmpty else { throw TestFailure("nothing was measured") }
            return sorted[sorted.count * 99 / 100]
        }
    }
}
