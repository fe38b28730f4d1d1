import ApusPlatform
import ApusTransport
import Glibc
import Testing

@Suite("Names to addresses")
struct ResolverTests {
    /// What a test's name server says to a question of one type.
    enum Say: Sendable, Equatable {
        case addresses([[UInt8]])
        /// The name has no such record.
        case nothing
        /// The name does not exist.
        case noName
        case silence
    }

    /// A name server on a loopback port, and a resolver that asks it, on one loop.
    final class Stage {
        let loop: EventLoop
        let resolver: Resolver
        private let server: Int32
        private let four: Say
        private let six: Say
        private(set) var questions: [String] = []
        private(set) var events: [String] = []

        init(four: Say, six: Say) throws {
            (self.four, self.six) = (four, six)
            loop = try EventLoop()
            server = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            try #require(server >= 0)
            try Socket.bind(server, to: .ipv4(0x7F00_0001, port: 0))
            resolver = Resolver(loop, servers: "\(try Socket.localAddress(of: server))")
        }

        deinit { close(server) }

        func ask(_ name: String, _ mark: String = "") -> NameLookup {
            resolver.resolve(name) { [unowned self] event in
                switch event {
                case .addresses(let found): events.append(mark + found.map(\.host).joined(separator: " "))
                case .end(nil): events.append(mark + "end")
                case .end(let failure?): events.append(mark + "\(failure)")
                }
            }
        }

        func turn(until condition: () -> Bool) throws {
            let deadline = MonotonicTime.now() + .seconds(5)
            while !condition(), MonotonicTime.now() < deadline {
                try loop.turn(timeout: .milliseconds(5))
                answer()
            }
            #expect(condition(), "\(events)")
        }

        func isOver() -> Bool { events.last.map { $0.hasSuffix("end") || $0.contains("not found") || $0.contains("no data") } ?? false }

        /// Answers what was asked (RFC 1035 §4).
        private func answer() {
            var buffer = [UInt8](repeating: 0, count: 512)
            var storage = sockaddr_storage()
            while true {
                var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
                let count = withUnsafeMutablePointer(to: &storage) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(server, &buffer, 512, 0, $0, &length) }
                }
                guard count > 12, let end = buffer[12..<count].firstIndex(of: 0) else { return }
                let type = buffer[end + 2]
                questions.append(type == 28 ? "AAAA" : "A")
                let say = type == 28 ? six : four
                var reply = Array(buffer[..<(end + 5)])
                reply[2] = 0x81
                reply[3] = 0x80
                switch say {
                case .silence: continue
                case .noName: reply[3] = 0x83
                case .nothing: break
                case .addresses(let list):
                    reply[7] = UInt8(list.count)
                    for address in list { reply += [0xC0, 12, 0, type, 0, 1, 0, 0, 0, 60, 0, UInt8(address.count)] + address }
                }
                // Additional records of the question are left out.
                (reply[8], reply[9], reply[10], reply[11]) = (0, 0, 0, 0)
                _ = withUnsafePointer(to: &storage) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { sendto(server, reply, reply.count, 0, $0, length) }
                }
            }
        }
    }

    static let four: Say = .addresses([[192, 0, 2, 1], [192, 0, 2, 2]])
    static let six: Say = .addresses([[0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [7]])

    struct Case: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let four: Say
        let six: Say
        let events: [String]
    }

    static let cases = [
        Case(testDescription: "both: IPv6 in front", four: four, six: six, events: ["2001:db8::7 192.0.2.1 192.0.2.2", "end"]),
        Case(testDescription: "IPv4 only", four: four, six: .nothing, events: ["192.0.2.1 192.0.2.2", "end"]),
        Case(testDescription: "IPv6 only", four: .nothing, six: six, events: ["2001:db8::7", "end"]),
        Case(testDescription: "no such name", four: .noName, six: .noName, events: ["Domain name not found"]),
    ]

    @Test("what a name server says", arguments: cases)
    func answers(_ example: Case) throws {
        let stage = try Stage(four: example.four, six: example.six)
        let lookup = stage.ask("host.test")
        #expect(stage.events.isEmpty, "never from inside resolve")
        try stage.turn { stage.isOver() }
        // The two answers may arrive in two turns.
        let addresses = stage.events.dropLast().joined(separator: " ")
        let wanted = example.events.dropLast().joined(separator: " ")
        #expect(Set(addresses.split(separator: " ")) == Set(wanted.split(separator: " ")))
        #expect(stage.events.last == example.events.last)
        #expect(!stage.resolver.isActive, "nothing is kept while nothing is asked")
        withExtendedLifetime(lookup) {}
    }

    @Test("IPv4 does not wait for IPv6 for longer than 50 ms")
    func resolutionDelay() throws {
        let stage = try Stage(four: Self.four, six: .silence)
        let start = MonotonicTime.now()
        let lookup = stage.ask("host.test")
        try stage.turn { !stage.events.isEmpty }
        #expect(stage.events == ["192.0.2.1 192.0.2.2"])
        #expect(MonotonicTime.now().millisecondsSince(start) >= 50)
        #expect(stage.resolver.isActive)
        lookup.cancel()
        try stage.turn { !stage.resolver.isActive }
        #expect(stage.events.count == 1, "nothing is told after cancel")
    }

    @Test("a name that many ask for is asked for once")
    func shared() throws {
        let stage = try Stage(four: Self.four, six: Self.six)
        let lookups = (0..<100).map { stage.ask("host.test", "\($0) ") }
        try stage.turn { stage.events.count { $0.hasSuffix(" end") } == 100 }
        #expect(stage.questions.sorted() == ["A", "AAAA"])
        withExtendedLifetime(lookups) {}
    }

    @Test("one of several who gives up does not end it for the others")
    func oneCancels() throws {
        let stage = try Stage(four: Self.four, six: Self.six)
        let (first, second) = (stage.ask("host.test", "1 "), stage.ask("host.test", "2 "))
        first.cancel()
        try stage.turn { stage.events.last == "2 end" }
        #expect(!stage.events.contains { $0.hasPrefix("1") })
        withExtendedLifetime(second) {}
    }

    @Test("a silent name server ends with its resolver, without a trace")
    func abandoned() throws {
        let stage = try Stage(four: .silence, six: .silence)
        let lookup = stage.ask("host.test")
        try stage.turn { stage.questions.count == 2 }
        lookup.cancel()
        try stage.turn { !stage.resolver.isActive }
        #expect(stage.events.isEmpty)
    }

    @Test("localhost is loopback and asks nobody", arguments: ["localhost", "LOCALHOST.", "a.localhost"])
    func localhost(name: String) throws {
        let stage = try Stage(four: Self.four, six: Self.six)
        let lookup = stage.ask(name)
        try stage.turn { stage.isOver() }
        #expect(stage.events == ["::1 127.0.0.1", "end"])
        #expect(stage.questions.isEmpty && !stage.resolver.isActive)
        withExtendedLifetime(lookup) {}
    }

    @Test("a name below .invalid does not exist, and nobody is asked", arguments: ["x.invalid", "INVALID", "a.b.invalid."])
    func invalid(name: String) throws {
        let stage = try Stage(four: Self.four, six: Self.six)
        let lookup = stage.ask(name)
        try stage.turn { stage.isOver() }
        #expect(stage.events == ["Domain name not found"])
        #expect(stage.questions.isEmpty && !stage.resolver.isActive)
        withExtendedLifetime(lookup) {}
    }

    @Test("/etc/hosts is honoured: this host's own name has an address, if it stands there")
    func hosts() throws {
        guard let file = fopen("/etc/hosts", "r") else { return }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 1024)
        var entry: (host: String, name: String)?
        while entry == nil, fgets(&line, 1024, file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            let words = text.split { " \t\n".contains($0) }
            if words.count > 1, !words[1].contains("localhost"), SocketAddress(numericHost: String(words[0]), port: 0) != nil {
                entry = (String(words[0]), String(words[1]))
            }
        }
        guard let entry else { return }
        let stage = try Stage(four: .nothing, six: .nothing)
        let lookup = stage.ask(entry.name)
        try stage.turn { stage.isOver() }
        #expect(stage.events.contains { $0.contains(entry.host) }, "\(entry) \(stage.events)")
        withExtendedLifetime(lookup) {}
    }
}
