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
        #expect(
            busy.current.name == idle.current.name && busy.current.cipher == idle.current.cipher && busy.current.mac == idle.current.mac)
        #expect(busy.previous?.name == idle.previous?.name && busy.previous?.name != busy.current.name)
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
