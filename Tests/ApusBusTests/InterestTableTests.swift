import ApusBus
import Testing

@Suite("Who wants what")
struct InterestTableTests {
    @Test("a slot is interested from the first connection or subscription to the last, and no other slot is")
    func counts() throws {
        let table = try InterestTable(slots: 3)
        let hash = InterestTable.hash(Array("a/b".utf8))
        for _ in 0..<2 {
            table.count(1, protocolIndex: 63, in: 1)
            table.count(1, topicHash: hash, in: 1)
        }
        for left in [1, 0] {
            #expect(table.isInterested(1, protocolIndex: 63) && table.isInterested(1, topicHash: hash), "\(left) more")
            table.count(-1, protocolIndex: 63, in: 1)
            table.count(-1, topicHash: hash, in: 1)
            for slot in [0, 2] { #expect(!table.isInterested(slot, protocolIndex: 63) && !table.isInterested(slot, topicHash: hash)) }
        }
        #expect(!table.isInterested(1, protocolIndex: 63) && !table.isInterested(1, topicHash: hash))
        #expect(!table.isInterested(1, protocolIndex: 62))
    }

    @Test("a pattern is interest in every topic")
    func patterns() throws {
        let table = try InterestTable(slots: 2)
        table.countPattern(1, in: 1)
        for topic in ["", "a", "b/c"] {
            let hash = InterestTable.hash(Array(topic.utf8))
            #expect(table.isInterested(1, topicHash: hash) && !table.isInterested(0, topicHash: hash))
        }
        table.countPattern(-1, in: 1)
        #expect(!table.isInterested(1, topicHash: InterestTable.hash([])))
    }

    @Test("the first and the last bucket, protocol and slot have cells of their own, and clearing empties one row")
    func edges() throws {
        let table = try InterestTable(slots: 2)
        for slot in 0..<2 {
            for index in [0, 63] { table.count(1, protocolIndex: index, in: slot) }
            for hash in [0, 1023] { table.count(1, topicHash: hash, in: slot) }
            table.countPattern(1, in: slot)
            #expect(table.set(.writable, protocolIndex: 63, in: slot) && table.set(.resume, protocolIndex: 0, in: slot))
        }
        table.clear(0)
        for index in [0, 63] { #expect(!table.isInterested(0, protocolIndex: index) && table.isInterested(1, protocolIndex: index)) }
        for hash in [0, 1023] { #expect(!table.isInterested(0, topicHash: hash) && table.isInterested(1, topicHash: hash)) }
        #expect(table.take(.writable, of: 0) == 0 && table.take(.resume, of: 0) == 0)
        #expect(table.take(.writable, of: 1) == 1 << 63 && table.take(.resume, of: 1) == 1)
    }

    @Test("topics spread over the buckets, the same in every process")
    func hashes() {
        #expect(InterestTable.hash([]) == Int((0xCBF2_9CE4_8422_2325 ^ 0xCBF2_9CE4 as UInt64) % 1024))
        var used: Set<Int> = []
        for index in 0..<4096 {
            let hash = InterestTable.hash(Array("room/\(index)".utf8))
            #expect((0..<1024).contains(hash))
            used.insert(hash)
        }
        // 4,096 into 1,024 at random leave some 19 empty.
        #expect(used.count > 950)
    }

    @Test("only the first bit of a kind wakes; taking them lets the next one wake again", arguments: InterestTable.Request.allCases)
    func bits(_ request: InterestTable.Request) throws {
        let table = try InterestTable(slots: 2)
        #expect(table.take(request, of: 1) == 0)
        #expect(table.set(request, protocolIndex: 5, in: 1))
        #expect(!table.set(request, protocolIndex: 5, in: 1))
        #expect(!table.set(request, protocolIndex: 63, in: 1))
        for other in InterestTable.Request.allCases where other != request {
            #expect(table.set(other, protocolIndex: 1, in: 1), "each kind wakes for itself")
        }
        #expect(table.take(request, of: 0) == 0)
        #expect(table.take(request, of: 1) == 0x8000_0000_0000_0020)
        #expect(table.take(request, of: 1) == 0)
        #expect(table.set(request, protocolIndex: 5, in: 1))
    }
}
