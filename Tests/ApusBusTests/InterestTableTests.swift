import ApusBus
import ApusCodec
import Testing

@Suite("Who wants what")
struct InterestTableTests {
    @Test("a place is interested from the first connection or subscription to the last, and no other is")
    func counts() throws {
        let table = try InterestTable(slots: 2)
        let hash = TopicHash.of(Array("a/b".utf8).rawSpan)
        for _ in 0..<2 {
            table.count(1, protocolIndex: 63, in: 1)
            table.count(1, topicHash: hash, in: 1)
        }
        for left in [1, 0] {
            #expect(table.isInterested(1, protocolIndex: 63) && table.isInterested(1, topicHash: hash), "\(left) more")
            table.count(-1, protocolIndex: 63, in: 1)
            table.count(-1, topicHash: hash, in: 1)
            for slot in [0, 2, 3] { #expect(!table.isInterested(slot, protocolIndex: 63) && !table.isInterested(slot, topicHash: hash)) }
        }
        #expect(!table.isInterested(1, protocolIndex: 63) && !table.isInterested(1, topicHash: hash))
        #expect(!table.isInterested(1, protocolIndex: 62))
    }

    @Test("a pattern is interest in every topic")
    func patterns() throws {
        let table = try InterestTable(slots: 2)
        table.countPattern(1, in: 1)
        for topic in ["", "a", "b/c"] {
            let hash = TopicHash.of(Array(topic.utf8).rawSpan)
            #expect(table.isInterested(1, topicHash: hash) && !table.isInterested(0, topicHash: hash))
        }
        table.countPattern(-1, in: 1)
        let hash = TopicHash().value
        #expect(!table.isInterested(1, topicHash: hash))
    }

    @Test("the first and the last bucket, protocol and place have cells of their own, and joining empties one row")
    func edges() throws {
        let table = try InterestTable(slots: 2)
        for slot in 0..<4 {
            for index in [0, 63] { table.count(1, protocolIndex: index, in: slot) }
            for hash in [0, 1023] as [UInt32] { table.count(1, topicHash: hash, in: slot) }
            table.countPattern(1, in: slot)
            #expect(table.set(.writable, protocolIndex: 63, in: slot) && table.set(.resume, protocolIndex: 0, in: slot))
        }
        table.join(0, generation: 1)
        for index in [0, 63] { #expect(!table.isInterested(0, protocolIndex: index) && table.isInterested(1, protocolIndex: index)) }
        for hash in [0, 1023] as [UInt32] { #expect(!table.isInterested(0, topicHash: hash) && table.isInterested(1, topicHash: hash)) }
        #expect(table.take(.writable, of: 0) == 0 && table.take(.resume, of: 0) == 0)
        #expect(table.take(.writable, of: 1) == 1 << 63 && table.take(.resume, of: 1) == 1)
    }

    @Test("a hash does not depend on how the name is cut, and spreads")
    func hashes() {
        var used: Set<UInt32> = []
        for index in 0..<4096 {
            let name = Array("room/\(index)".utf8)
            let whole = TopicHash.of(name.rawSpan)
            for cut in 0...name.count {
                var hash = TopicHash()
                hash.add(name.rawSpan.extracting(0..<cut))
                _ = hash.value
                hash.add(name.rawSpan.extracting(cut...))
                #expect(hash.value == whole)
            }
            used.insert(whole % 1024)
        }
        // 4,096 into 1,024 at random leave some 19 empty.
        #expect(used.count > 950)
    }

    @Test("a place belongs to one process at a time: who joins finds it empty, and who has gone takes nothing from its successor")
    func places() throws {
        let table = try InterestTable(slots: 2)
        let place = Mailboxes.place(slot: 1, side: 0)
        #expect(place == 2 && Mailboxes.place(slot: 1, side: 1) == 3)
        #expect(table.generation(of: place) == 0)
        table.join(place, generation: 5)
        table.count(3, protocolIndex: 1, in: place)
        #expect(table.generation(of: place) == 5 && table.isInterested(place, protocolIndex: 1))
        table.join(place, generation: 7)
        #expect(!table.isInterested(place, protocolIndex: 1))
        table.count(1, protocolIndex: 2, in: place)
        table.leave(place, generation: 5)
        #expect(table.generation(of: place) == 7 && table.isInterested(place, protocolIndex: 2))
        table.leave(place, generation: 7)
        #expect(table.generation(of: place) == 0 && !table.isInterested(place, protocolIndex: 2))
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
