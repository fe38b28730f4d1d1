import Testing

@testable import ApusTransport

@Suite("The keys of session tickets")
struct TicketKeysTests {
    private final class Clock: @unchecked Sendable { var seconds = 1_000_000 * 3600 + 17 }
    private static let secret = (0..<32).map { UInt8($0) }

    private func keys(_ clock: Clock) -> TicketKeys { TicketKeys(secret: Self.secret, clock: { clock.seconds }) }

    @Test("processes that began with one secret agree, however late each looks at the clock")
    func agreement() {
        let clock = Clock()
        let (busy, idle) = (keys(clock), keys(clock))
        for _ in 0..<50 {
            clock.seconds += 3600
            busy.advance()
        }
        #expect(busy.current.name != idle.current.name)
        idle.advance()
        #expect(busy.current == idle.current && busy.previous == idle.previous && busy.previous?.name != busy.current.name)
    }

    @Test("a key seals for an hour, opens for another, and is gone then")
    func period() {
        let clock = Clock()
        let keys = keys(clock)
        let first = keys.current
        clock.seconds += 3599 - 17
        keys.advance()
        #expect(keys.current.name == first.name && keys.previous == nil)
        clock.seconds += 1
        keys.advance()
        #expect(keys.current.name != first.name && keys.previous?.name == first.name)
        clock.seconds += 3600
        keys.advance()
        #expect(keys.previous?.name != first.name)
    }

    @Test("what is handed down opens the same tickets, in the same hours; anything else is nothing")
    func handedDown() throws {
        let clock = Clock()
        let old = keys(clock)
        for hours in 0..<3 {
            clock.seconds += 3600 * hours
            let new = try #require(TicketKeys(handedDown: old.handedDown, clock: { clock.seconds }))
            for _ in 0..<3 {
                #expect(new.current == old.current && new.previous == old.previous)
                clock.seconds += 3600
                new.advance()
                old.advance()
            }
        }
        for count in [0, 39, 41, 119, 121] { #expect(TicketKeys(handedDown: [UInt8](repeating: 0, count: count)) == nil) }
    }

    @Test("a clock that is set back keeps the keys")
    func back() {
        let clock = Clock()
        let keys = keys(clock)
        let name = keys.current.name
        clock.seconds -= 1_000_000
        keys.advance()
        #expect(keys.current.name == name)
    }

    @Test("name, cipher key and MAC key are different, and other secrets give others")
    func derivation() {
        let keys = keys(Clock())
        #expect(keys.current.name.count == 16 && keys.current.cipher.count == 32 && keys.current.mac.count == 32)
        #expect(keys.current.cipher != keys.current.mac && !keys.current.cipher.starts(with: keys.current.name))
        #expect(TicketKeys().current.name != TicketKeys().current.name)
    }
}
