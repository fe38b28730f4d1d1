import ApusCodec
import Testing

@Suite("RFC 6455 what a connection keeps of its wire")
struct WebSocketStateTests {
    static func state(_ role: Role = .server) -> WebSocketState {
        WebSocketState(role: role, maxMessageBytes: 1 << 20, now: .at(0), limits: WebSocketLimits())
    }

    struct Text: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let bytes: [UInt8]
        let isValid: Bool
    }

    static let texts: [Text] = [
        Text(testDescription: "nothing", bytes: [], isValid: true),
        Text(testDescription: "ASCII", bytes: Array("Hello".utf8), isValid: true),
        Text(testDescription: "sequences of two, three and four octets", bytes: Array("é€𝄞".utf8), isValid: true),
        Text(testDescription: "a sequence that is cut short", bytes: [0x61, 0xE2, 0x82], isValid: false),
        Text(testDescription: "a surrogate", bytes: [0xED, 0xA0, 0x80], isValid: false),
        Text(testDescription: "an overlong form", bytes: [0xC0, 0x80], isValid: false),
    ]

    @Test("text is checked in whatever fragments it comes, and anew in each message", arguments: texts, Feed.allCases)
    func text(text: Text, feed: Feed) {
        var state = Self.state()
        let pieces: [[UInt8]] =
            switch feed {
            case .whole: [text.bytes]
            case .byteByByte: text.bytes.map { [$0] } + [[]]
            case .withTrailingBytes: [text.bytes, Array("!".utf8)]
            }
        var isValid = true
        for (index, piece) in pieces.enumerated() {
            do throws(FrameViolation) {
                try state.checkText(piece.rawSpan, endsMessage: index == pieces.count - 1)
            } catch {
                #expect(error == .invalidUTF8)
                isValid = false
                break
            }
        }
        #expect(isValid == text.isValid)
        guard isValid else { return }
        #expect(throws: Never.self) { try state.checkText(Array("next".utf8).rawSpan, endsMessage: true) }
        #expect(state == Self.state())
    }

    @Test("fragments: the first has the message's opcode, the others continue it")
    func fragments() {
        var state = Self.state()
        #expect(state.nextFragmentOpcode(.text, isLast: false) == .text)
        #expect(state.isSendingFragments)
        #expect(state.nextFragmentOpcode(.text, isLast: false) == .continuation)
        #expect(state.nextFragmentOpcode(.text, isLast: true) == .continuation)
        #expect(!state.isSendingFragments)
        #expect(state.nextFragmentOpcode(.binary, isLast: true) == .binary)
        #expect(!state.isSendingFragments)
    }

    @Test("a copy of the decoder reads frames and is put back, in whatever pieces they come", arguments: Feed.allCases)
    func decoder(feed: Feed) throws {
        let first = wire(0x01, Array("Hel".utf8), key: sampleKey)
        let bytes = first + wire(0x80, Array("lo".utf8), key: sampleKey)
        var state = Self.state()
        var content: [UInt8] = []
        let pieces: [[UInt8]] =
            switch feed {
            case .whole: [bytes]
            case .byteByByte: bytes.map { [$0] }
            case .withTrailingBytes: [bytes + [0x89]]
            }
        var buffer: [UInt8] = []
        var isWatched = false
        for piece in pieces {
            buffer += piece
            var position = 0
            let end = buffer.count
            var decoder = state.decoder
            var octets = buffer.mutableSpan
            var memory = octets.mutableBytes
            while let event = try decoder.next(in: &memory, until: end, from: &position) {
                guard case .data(let part) = event else { continue }
                let payload = memory.bytes.extracting(part.range)
                try state.checkText(payload, endsMessage: part.endsMessage)
                content.append(payload)
            }
            buffer.removeFirst(position)
            state.decoder = decoder
            _ = state.watchMessage(assembledBytes: content.count, now: .at(1), limits: WebSocketLimits())
            isWatched = isWatched || state.isWatchingMessage
        }
        #expect(content == Array("Hello".utf8))
        #expect(isWatched == (feed == .byteByByte), "a message that comes whole is not watched")
        #expect(!state.isWatchingMessage)
        #expect(buffer.count == (feed == .withTrailingBytes ? 1 : 0))
    }

    // MARK: Pings

    @Test("a ping is answered at once, or behind what waits; of several that wait only the last is")
    func pings() {
        var state = Self.state()
        #expect(state.receivedPing([1].rawSpan, waitingBytes: 0) == .send)
        #expect(state.receivedPing([2].rawSpan, waitingBytes: 100) == .queue)
        state.pongQueued(waitingBytes: 103)
        #expect(state.receivedPing([3].rawSpan, waitingBytes: 103) == .wait)
        #expect(state.receivedPing([4].rawSpan, waitingBytes: 103) == .wait)
        #expect(state.outputSent(0) == nil)
        #expect(state.outputSent(102) == nil)
        #expect(state.outputSent(1) == [4])
        state.pongQueued(waitingBytes: 50)
        #expect(state.outputSent(60) == nil)
        #expect(state.receivedPing([5].rawSpan, waitingBytes: 7) == .queue)
    }

    @Test("a pong that waits goes out when nothing waits before it, unless this side is closing")
    func pongs() {
        for isClosing in [false, true] {
            var state = Self.state()
            #expect(state.receivedPing([1].rawSpan, waitingBytes: 10) == .queue)
            state.pongQueued(waitingBytes: 13)
            #expect(state.receivedPing([2].rawSpan, waitingBytes: 13) == .wait)
            if isClosing { _ = state.close(.normal, reason: "", output: .drained, now: .at(1), limits: WebSocketLimits()) }
            #expect(state.outputDrained(now: .at(2), limits: WebSocketLimits()) == (isClosing ? nil : [2]))
            #expect(state.outputDrained(now: .at(3), limits: WebSocketLimits()) == nil)
        }
    }

    // MARK: Closing

    enum Event: Sendable {
        case close, receivedClose, fail, didEnd

        static let all: [Event] = [.close, .receivedClose, .fail, .didEnd]
    }

    struct Closing: CustomTestStringConvertible, Sendable {
        let events: [Event]
        let actions: [SessionState.Action]
        let session: SessionState
        let ending: WebSocketEnding

        var testDescription: String { "\(events)" }
    }

    static let violation = FrameViolation.invalidUTF8
    static let byPeer = WebSocketEnding(.goingAway, "bye")
    static let byFault = WebSocketEnding(.invalidPayload, violation.reason)
    static let sendClose = SessionState.Action.sendClose(.normal, reason: "done")

    static let closings: [Closing] = [
        Closing(events: [], actions: [], session: .open, ending: .abnormal),
        Closing(events: [.close], actions: [sendClose], session: .closeSent, ending: .abnormal),
        Closing(events: [.receivedClose], actions: [.answerCloseAndEnd(.goingAway)], session: .closed, ending: byPeer),
        Closing(events: [.fail], actions: [.failAndEnd(.invalidPayload, reason: violation.reason)], session: .closed, ending: byFault),
        Closing(events: [.didEnd], actions: [.none], session: .closed, ending: .abnormal),
        Closing(events: [.close, .close], actions: [sendClose, .none], session: .closeSent, ending: .abnormal),
        Closing(events: [.close, .receivedClose], actions: [sendClose, .end], session: .closed, ending: byPeer),
        Closing(events: [.close, .fail], actions: [sendClose, .end], session: .closed, ending: byFault),
        Closing(events: [.close, .didEnd], actions: [sendClose, .none], session: .closed, ending: .abnormal),
        Closing(events: [.didEnd, .close], actions: [.none, .none], session: .closed, ending: .abnormal),
    ]

    @Test("§7.1 the closing handshake, and what it reports", arguments: closings)
    func closing(closing: Closing) {
        var state = Self.state()
        var actions: [SessionState.Action] = []
        for event in closing.events {
            switch event {
            case .close:
                actions.append(state.close(.normal, reason: "done", output: .drained, now: .at(1), limits: WebSocketLimits()))
            case .receivedClose: actions.append(state.receivedClose(.goingAway, reason: "bye"))
            case .fail: actions.append(state.fail(Self.violation))
            case .didEnd:
                state.didEnd()
                actions.append(.none)
            }
        }
        #expect(actions == closing.actions)
        #expect(state.session == closing.session)
        #expect(state.ending == closing.ending)
        #expect((state.deadline == nil) == (closing.session == .closed))
    }

    @Test("a close frame without a code is reported as 1005")
    func closeWithoutCode() {
        var state = Self.state()
        #expect(state.receivedClose(nil, reason: "") == .answerCloseAndEnd(nil))
        #expect(state.ending == WebSocketEnding(.noStatus))
    }

    @Test("the state of an idle connection is small")
    func size() {
        #expect(MemoryLayout<WebSocketState>.size <= MemoryLayout<FrameDecoder>.stride + 40)
    }
}
