import Testing

@testable import ApusBus

@Suite("What waits for a place")
struct OutboxTests {
    @Test("records lost are counted up to the most that a packet can say, and no further")
    func lost() {
        let sender = Packet.Header(sender: 1)
        var outbox = Outbox()
        outbox.turn(to: 1)
        outbox.drop(.max - 1)
        for expected in [UInt32.max, .max] {
            outbox.drop()
            #expect(outbox.lost == expected)
        }
        // What a packet that is given up would have said comes on top.
        let packet = outbox.tail(for: 100, from: sender)
        packet.appendSignal(protocolIndex: 0, signal: 1, payload: [UInt8]().span.bytes)
        #expect(packet.lost == .max && outbox.lost == 0)
        outbox.drop(7)
        let dropped = outbox.dropAll()
        #expect(dropped == 1 && outbox.lost == .max && outbox.isEmpty)
        #expect(outbox.first(from: sender)?.lost == .max)
    }
}
