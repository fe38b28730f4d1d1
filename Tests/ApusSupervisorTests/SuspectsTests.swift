import ApusPlatform
import Testing

@testable import ApusSupervisor

@Suite("Suspects: peers and routes that were being served when workers died")
struct SuspectsTests {
    private static func serving(_ host: UInt32, port: UInt16 = 4711, route: String? = nil) -> Serving {
        Serving(peer: .ipv4(host, port: port), route: route, description: "")
    }

    private static func peer(_ host: UInt32) -> Suspects.Suspect { .peer(.ipv4(host, port: 0)) }

    private func died(_ suspects: inout Suspects, _ serving: Serving, at seconds: UInt64) -> [Suspects.Suspect] {
        suspects.died(serving: serving, at: MonotonicTime(milliseconds: seconds * 1000)).map(\.suspect)
    }

    @Test("the third death within a minute names the peer, whatever its ports, and the route; once a minute, with the count")
    func third() {
        var suspects = Suspects()
        #expect(died(&suspects, Self.serving(1, port: 1, route: "GET /a"), at: 10) == [])
        #expect(died(&suspects, Self.serving(1, port: 2, route: "GET /a"), at: 20) == [])
        #expect(died(&suspects, Self.serving(1, port: 3, route: "GET /a"), at: 69) == [Self.peer(1), .route("GET /a")])
        for _ in 0..<100 { #expect(died(&suspects, Self.serving(1, route: "GET /a"), at: 128) == []) }
        let again = suspects.died(serving: Self.serving(1, route: "GET /a"), at: MonotonicTime(milliseconds: 129_000))
        #expect(again.map(\.suspect) == [Self.peer(1), .route("GET /a")] && again.allSatisfy { $0.deaths == 101 })
    }

    @Test("deaths a minute apart, and of others, do not add up")
    func apart() {
        var suspects = Suspects()
        #expect(died(&suspects, Self.serving(1), at: 0) == [])
        #expect(died(&suspects, Self.serving(1), at: 59) == [])
        #expect(died(&suspects, Self.serving(2), at: 59) == [])
        #expect(died(&suspects, Self.serving(1), at: 60) == [])
        #expect(died(&suspects, Self.serving(2), at: 61) == [])
        #expect(died(&suspects, Self.serving(1), at: 118) == [Self.peer(1)])
    }

    @Test("one peer on many routes is named, and so is one route of many peers; what has no address or route is not")
    func each() {
        var suspects = Suspects()
        #expect(died(&suspects, Self.serving(1, route: "GET /a"), at: 0) == [])
        #expect(died(&suspects, Self.serving(2, route: "GET /a"), at: 0) == [])
        #expect(died(&suspects, Self.serving(3, route: "GET /a"), at: 0) == [.route("GET /a")])
        #expect(died(&suspects, Self.serving(1, route: "GET /b"), at: 0) == [])
        #expect(died(&suspects, Self.serving(1, route: "GET /c"), at: 0) == [Self.peer(1)])
        for _ in 0..<5 { #expect(died(&suspects, Serving(peer: nil, route: nil, description: ""), at: 0) == []) }
    }

    @Test("a peer is quarantined for a minute")
    func quarantine() {
        var quarantine = Quarantine()
        let peer = SocketAddress.ipv4(1, port: 0)
        _ = quarantine.add(peer, now: MonotonicTime(milliseconds: 1000))
        let (during, after) = (
            quarantine.peers(now: MonotonicTime(milliseconds: 60_999)), quarantine.peers(now: MonotonicTime(milliseconds: 61_000))
        )
        #expect(during.map(\.peer) == [peer] && during.map(\.end) == [MonotonicTime(milliseconds: 61_000)])
        #expect(after.isEmpty)
    }

    @Test(
        "an order to quarantine, or to log, is decoded as it was encoded",
        arguments: [
            WorkerCommand.quarantine(.ipv4(0x7f00_0001, port: 0), until: MonotonicTime(milliseconds: 123_456_789)),
            .quarantine(.ipv6(high: 0x2001_0db8_0000_0000, low: 1, port: 0, scope: 0), until: MonotonicTime(milliseconds: 0)),
            .logLevel(0), .logLevel(255),
        ])
    func orders(order: WorkerCommand) { #expect(WorkerCommand(record: order.record) == order) }

    @Test(
        "an order that cannot be parsed is rejected", arguments: ["", "1", "1 127.0.0.1", "x 127.0.0.1:0", "1 nobody:0", "1 127.0.0.1:0 2"])
    func senseless(text: String) { #expect(WorkerCommand(record: [8] + text.utf8) == nil) }
}
