import ApusCodec
import ApusPlatform
import FuzzTargets
import Testing

@testable import ApusBus

// What one process that has gone wrong can do to the others' part of the bus.
extension BroadcastBusTests {
    @Test("a process whose place was said to be another's hears again once it no longer is, what its connections of then want")
    func placeReturned() throws {
        let (first, second) = (try station(0), try station(1, subscribed: false))
        let place = second.bus.place
        second.bus.count(1, .topic(hash: Self.hash))
        first.publish("before")
        try settle(first, second)
        #expect(second.texts == ["before"])
        // Somebody writes where everybody may; with the next packet it is seen.
        interest.join(place, generation: 99)
        try send(Self.packet(from: 0), to: 1)
        try settle(second)
        #expect(second.texts.last == "\(BroadcastBus.Disturbance.placeTaken(by: 99))")
        for change in [1, 1, -1] {
            second.bus.count(change, .topic(hash: Self.hash))
            second.bus.count(change, .pattern)
            second.bus.count(change, .connections(protocolIndex: 3))
        }
        second.bus.count(1, .pattern)
        second.bus.count(-2, .pattern)
        #expect(!interest.isInterested(place, topicHash: Self.hash) && !interest.isInterested(place, protocolIndex: 3))
        interest.join(place, generation: 1)
        second.clear()
        let deadline = MonotonicTime.now() + .seconds(20)
        while second.events.isEmpty, MonotonicTime.now() < deadline { try second.loop.turn(timeout: .milliseconds(10)) }
        #expect(second.events == [.disturbed(.placeReturned)])
        #expect(interest.isInterested(place, topicHash: Self.hash) && interest.isInterested(place, protocolIndex: 3))
        #expect(!interest.isInterested(place, topicHash: Self.hash &+ 1))
        first.publish("after")
        first.bus.request(.resume, protocolIndex: 3)
        try settle(first, second)
        #expect(Set(second.texts.dropFirst()) == ["after", "resume 8"])
    }

    @Test("a mailbox that somebody has shut down: what is in it is heard, its end is told once and costs nothing, and all still speak")
    func mailboxShut() throws {
        let (first, second) = (try station(0), try station(1))
        first.publish("before")
        first.bus.flush()
        #expect(!mailboxes.isShut)
        try Socket.shutdownWrite(mailboxes.sending(to: second.bus.place))
        #expect(mailboxes.isShut)
        first.publish("lost")
        try settle(first, second)
        #expect(second.texts == ["before", "mailboxShut"])
        // A loop that finds the end again and again would turn thousands of times.
        let end = MonotonicTime.now() + .milliseconds(100)
        var turns = 0
        while MonotonicTime.now() < end {
            try second.loop.turn(timeout: .milliseconds(100))
            turns += 1
        }
        #expect(turns < 10)
        second.publish("still")
        interest.count(1, protocolIndex: 3, in: second.bus.place)
        first.bus.request(.resume, protocolIndex: 3)
        try settle(first, second)
        #expect(first.texts == ["still"] && second.texts.last == "resume 8")
    }
}
