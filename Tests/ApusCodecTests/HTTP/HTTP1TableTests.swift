import ApusCodec
import Testing

/// h11's tables (`_state.py`): each state with each event.
@Suite("RFC 9112 §9 the states of an exchange")
struct HTTP1TableTests {
    /// A state with what leads to it, and what comes of everything that may happen there.
    struct Row: CustomTestStringConvertible, Sendable {
        let names: String
        let role: Role
        let steps: [Step]
        /// What a complete message of the peer's leads to: the event, then the states.
        let message: (String, String)
        /// What the end of the input leads to.
        let end: (HTTP1EndOfInput, String)
        /// The calls that are permitted, and the states that they lead to.
        let calls: [HTTP1Call: String]

        var testDescription: String { "\(role): \(names)" }

        /// The peer's next message, behind the rest of a body that was begun.
        var text: String {
            switch (role, message.0) {
            case (.server, "data"): "hel"
            case (.client, "data"): "hello"
            case (.server, _): names == "receivingBody × done" ? "hello" + HTTP1TableTests.get : HTTP1TableTests.get
            case (.client, _): HTTP1TableTests.ok
            }
        }
    }

    enum Step: Sendable {
        case bytes(String)
        case end
        case call(HTTP1Call)
        case fault
        case closing(HTTP1Call)
    }

    static let get = HTTP1CycleTests.get
    static let half = String(get.prefix(9))
    static let post = HTTP1CycleTests.post
    static let head = String(post.dropLast(5))
    static let upgrade = HTTP1CycleTests.upgrade
    static let ok = HTTP1CycleTests.ok
    static let answered: [HTTP1Call: String] = [.startResponse: "failed × sendingBody"]

    static let server: [Row] = [
        Row(
            names: "idle × idle", role: .server, steps: [], message: ("request", "received × awaited"), end: (.clean, "closed × closed"),
            calls: [:]),
        Row(
            names: "receivingHead × idle", role: .server, steps: [.bytes(half)], message: ("violation", "failed × awaited"),
            end: (.truncated, "failed × awaited"), calls: [:]),
        Row(
            names: "received × awaited", role: .server, steps: [.bytes(get)], message: ("end", "done × awaited"),
            end: (.responseOwed, "received × awaited"),
            calls: [.startResponse: "received × sendingBody", .sendInformational: "received × awaited"]),
        Row(
            names: "received × sendingBody", role: .server, steps: [.bytes(get), .call(.startResponse)],
            message: ("end", "done × sendingBody"), end: (.responseOwed, "received × sendingBody"),
            calls: [.sendContent: "received × sendingBody", .endResponse: "idle × idle"]),
        Row(
            names: "receivingBody × awaited", role: .server, steps: [.bytes(head)], message: ("data", "receivingBody × awaited"),
            end: (.truncated, "failed × awaited"),
            calls: [.startResponse: "receivingBody × sendingBody", .sendInformational: "receivingBody × awaited"]),
        Row(
            names: "receivingBody × sendingBody", role: .server, steps: [.bytes(head), .call(.startResponse)],
            message: ("data", "receivingBody × sendingBody"), end: (.truncated, "failed × sendingBody"),
            calls: [.sendContent: "receivingBody × sendingBody", .endResponse: "receivingBody × done"]),
        Row(
            names: "receivingBody × done", role: .server, steps: [.bytes(head), .call(.startResponse), .call(.endResponse)],
            message: ("request", "received × awaited"), end: (.truncated, "failed × mustClose"), calls: [:]),
        Row(
            names: "done × awaited", role: .server, steps: [.bytes(get), .bytes("")], message: ("paused", "done × awaited"),
            end: (.responseOwed, "closed × awaited"),
            calls: [.startResponse: "done × sendingBody", .sendInformational: "done × awaited"]),
        Row(
            names: "done × sendingBody", role: .server, steps: [.bytes(get), .bytes(""), .call(.startResponse)],
            message: ("paused", "done × sendingBody"), end: (.responseOwed, "closed × sendingBody"),
            calls: [.sendContent: "done × sendingBody", .endResponse: "idle × idle"]),
        Row(
            names: "mightSwitch × awaited", role: .server, steps: [.bytes(upgrade), .bytes("")],
            message: ("paused", "mightSwitch × awaited"), end: (.responseOwed, "mightSwitch × awaited"),
            calls: [
                .startResponse: "done × sendingBody", .sendInformational: "mightSwitch × awaited", .acceptSwitch: "switched × switched",
            ]),
        Row(
            names: "switched × switched", role: .server, steps: [.bytes(upgrade), .call(.acceptSwitch)],
            message: ("over", "switched × switched"), end: (.clean, "switched × switched"), calls: [:]),
        Row(
            names: "closed × awaited", role: .server, steps: [.bytes(get), .bytes(""), .end], message: ("over", "closed × awaited"),
            end: (.responseOwed, "closed × awaited"),
            calls: [.startResponse: "closed × sendingBody", .sendInformational: "closed × awaited"]),
        Row(
            names: "closed × sendingBody", role: .server, steps: [.bytes(get), .bytes(""), .end, .call(.startResponse)],
            message: ("over", "closed × sendingBody"), end: (.responseOwed, "closed × sendingBody"),
            calls: [.sendContent: "closed × sendingBody", .endResponse: "closed × mustClose"]),
        Row(
            names: "mustClose × mustClose", role: .server, steps: [.bytes(get), .closing(.startResponse), .call(.endResponse)],
            message: ("over", "mustClose × mustClose"), end: (.clean, "mustClose × mustClose"), calls: [:]),
        Row(
            names: "closed × closed", role: .server, steps: [.end], message: ("over", "closed × closed"), end: (.clean, "closed × closed"),
            calls: [:]),
        Row(
            names: "failed × awaited", role: .server, steps: [.fault], message: ("over", "failed × awaited"),
            end: (.responseOwed, "failed × awaited"), calls: answered),
        Row(
            names: "failed × sendingBody", role: .server, steps: [.bytes(head), .call(.startResponse), .fault],
            message: ("over", "failed × sendingBody"), end: (.responseOwed, "failed × sendingBody"),
            calls: [.sendContent: "failed × sendingBody", .endResponse: "failed × mustClose"]),
    ]

    static let client: [Row] = [
        Row(
            names: "idle × idle", role: .client, steps: [], message: ("violation", "failed × failed"), end: (.clean, "closed × closed"),
            calls: [.startRequest: "sendingBody × awaited"]),
        Row(
            names: "sendingBody × awaited", role: .client, steps: [.call(.startRequest)],
            message: ("response", "sendingBody × receivingBody"), end: (.truncated, "failed × failed"),
            calls: [.sendContent: "sendingBody × awaited", .endRequest: "done × awaited"]),
        Row(
            names: "sendingBody × receivingHead", role: .client, steps: [.call(.startRequest), .bytes("HTTP")],
            message: ("violation", "failed × failed"), end: (.truncated, "failed × failed"),
            calls: [.sendContent: "sendingBody × receivingHead", .endRequest: "done × receivingHead"]),
        Row(
            names: "sendingBody × receivingBody", role: .client, steps: [.call(.startRequest), .bytes(ok)],
            message: ("data", "sendingBody × receivingBody"), end: (.truncated, "failed × failed"),
            calls: [.sendContent: "sendingBody × receivingBody", .endRequest: "done × receivingBody"]),
        Row(
            names: "sendingBody × done", role: .client, steps: [.call(.startRequest), .bytes(ok), .bytes("hello"), .bytes("")],
            message: ("paused", "sendingBody × done"), end: (.clean, "sendingBody × closed"),
            calls: [.sendContent: "sendingBody × done", .endRequest: "idle × idle"]),
        Row(
            names: "sendingBody × closed", role: .client, steps: [.call(.startRequest), .bytes(ok), .bytes("hello"), .bytes(""), .end],
            message: ("over", "sendingBody × closed"), end: (.clean, "sendingBody × closed"),
            calls: [.sendContent: "sendingBody × closed", .endRequest: "mustClose × closed"]),
        Row(
            names: "done × awaited", role: .client, steps: [.call(.startRequest), .call(.endRequest)],
            message: ("response", "done × receivingBody"), end: (.truncated, "failed × failed"), calls: [:]),
        Row(
            names: "done × receivingHead", role: .client, steps: [.call(.startRequest), .call(.endRequest), .bytes("HTTP")],
            message: ("violation", "failed × failed"), end: (.truncated, "failed × failed"), calls: [:]),
        Row(
            names: "done × receivingBody", role: .client, steps: [.call(.startRequest), .call(.endRequest), .bytes(ok)],
            message: ("data", "done × receivingBody"), end: (.truncated, "failed × failed"), calls: [:]),
        Row(
            names: "done × received", role: .client,
            steps: [.call(.startRequest), .call(.endRequest), .bytes("HTTP/1.1 204 A\r\n\r\n")], message: ("end", "idle × idle"),
            end: (.clean, "done × received"), calls: [:]),
        Row(
            names: "failed × failed", role: .client, steps: [.call(.startRequest), .end], message: ("over", "failed × failed"),
            end: (.clean, "failed × failed"), calls: [:]),
        Row(
            names: "closed × closed", role: .client, steps: [.end], message: ("over", "closed × closed"), end: (.clean, "closed × closed"),
            calls: [:]),
    ]

    static func cycle(_ row: Row) -> HTTP1Cycle {
        var cycle = HTTP1Cycle(role: row.role, now: .at(0))
        for step in row.steps {
            switch step {
            case .bytes(let text): _ = event(&cycle, text)
            case .end: _ = cycle.endOfInput()
            case .call(let call): perform(call, on: &cycle)
            case .closing: _ = cycle.startResponse(.ok, framing: .none, keepsAlive: false)
            case .fault: cycle.refuse()
            }
        }
        return cycle
    }

    /// The name of the first event that comes of bytes.
    static func event(_ cycle: inout HTTP1Cycle, _ text: String) -> String {
        let bytes = Array(text.utf8)
        var position = 0
        do throws(HTTPViolation) {
            guard let event = try cycle.event(bytes.span, from: &position, now: .at(0), limits: HTTP1Limits()) else { return "nil" }
            return String("\(event)".prefix { $0 != "(" })
        } catch {
            return "violation"
        }
    }

    static func perform(_ call: HTTP1Call, on cycle: inout HTTP1Cycle) {
        switch call {
        case .startRequest: cycle.startRequest(.post, framing: .chunked, wish: .keepAlive, now: .at(0))
        case .endRequest: _ = cycle.endRequest(now: .at(0))
        case .sendInformational: cycle.sendInformational(.earlyHints, now: .at(0))
        case .startResponse: _ = cycle.startResponse(.ok, framing: .counted(5), keepsAlive: true)
        case .endResponse: _ = cycle.endResponse(.drained, now: .at(0))
        case .acceptSwitch: _ = cycle.acceptSwitch()
        case .sendContent: cycle.sendContent(.drained, now: .at(0))
        }
    }

    @Test("each state, with each message, end and call", arguments: server + client)
    func row(row: Row) {
        let cycle = Self.cycle(row)
        #expect(cycle.names == row.names)
        var receiving = cycle
        #expect(Self.event(&receiving, row.text) == row.message.0)
        #expect(receiving.names == row.message.1)
        var ending = cycle
        #expect(ending.endOfInput() == row.end.0)
        #expect(ending.names == row.end.1)
        for call in HTTP1Call.allCases {
            #expect(cycle.permits(call) == (row.calls[call] != nil), "\(call)")
            guard let names = row.calls[call], cycle.permits(call) else { continue }
            var calling = cycle
            Self.perform(call, on: &calling)
            #expect(calling.names == names, "\(call)")
        }
        var closing = cycle
        closing.close()
        #expect(closing.names == "closed × closed")
        #expect(closing.deadline(HTTP1Limits(), waitingBytes: 1, pauses: []) == nil)
    }

    @Test("the end of the input may be the body's, unless TLS was cut", arguments: [HTTP1InputEnd.complete, .cut])
    func endOfBody(end: HTTP1InputEnd) {
        for (text, isDelimited) in [("HTTP/1.1 200 A\r\n\r\n", false), ("HTTP/1.1 200 A\r\nContent-Length: 2\r\n\r\n", true)] {
            var cycle = HTTP1Cycle(role: .client, now: .at(0))
            cycle.startRequest(.get, framing: .none, wish: .keepAlive, now: .at(0))
            var feeder = CycleFeeder(cycle)
            feeder.feed(text + "x", .whole)
            let isWhole = !isDelimited && end == .complete
            #expect(feeder.cycle.endOfInput(end) == (isWhole ? .endOfBody : .truncated))
            #expect(feeder.cycle.names == (isWhole ? "closed × closed" : "failed × failed"))
        }
    }
}
