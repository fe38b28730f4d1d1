import ApusCodec
import Testing

@Suite("RFC 6455 §7.1 closing handshake")
struct SessionStateTests {
    enum Event: Sendable {
        case close(CloseCode?, String)
        case receivedClose(CloseCode?)
        case fail(FrameViolation)
    }

    struct Transition: CustomTestStringConvertible, Sendable {
        let from: SessionState
        let event: Event
        let to: SessionState
        let action: SessionState.Action

        init(_ from: SessionState, _ event: Event, _ to: SessionState, _ action: SessionState.Action) {
            (self.from, self.event, self.to, self.action) = (from, event, to, action)
        }

        var testDescription: String { "\(from), \(event)" }
    }

    /// Every state with every event.
    static let table: [Transition] = [
        Transition(.open, .close(.goingAway, "bye"), .closeSent, .sendClose(.goingAway, reason: "bye")),
        Transition(.open, .close(nil, ""), .closeSent, .sendClose(nil, reason: "")),
        Transition(.open, .receivedClose(.normal), .closed, .answerCloseAndEnd(.normal)),
        Transition(.open, .receivedClose(nil), .closed, .answerCloseAndEnd(nil)),
        Transition(
            .open, .fail(.maskMismatch), .closed,
            .failAndEnd(.protocolError, reason: "client frames must be masked, server frames must not")),
        Transition(.open, .fail(.invalidUTF8), .closed, .failAndEnd(.invalidPayload, reason: "text is not UTF-8")),
        Transition(
            .open, .fail(.messageTooBig(size: 2, limit: 1)), .closed,
            .failAndEnd(.messageTooBig, reason: "message over the limit of 1 bytes")),
        Transition(.closeSent, .close(.normal, ""), .closeSent, .none),
        Transition(.closeSent, .receivedClose(.normal), .closed, .end),
        Transition(.closeSent, .receivedClose(nil), .closed, .end),
        Transition(.closeSent, .fail(.malformedLength), .closed, .end),
        Transition(.closed, .close(.normal, ""), .closed, .none),
        Transition(.closed, .receivedClose(.normal), .closed, .none),
        Transition(.closed, .fail(.malformedLength), .closed, .none),
    ]

    @Test("transitions", arguments: table)
    func transition(_ transition: Transition) {
        var state = transition.from
        let action: SessionState.Action
        switch transition.event {
        case .close(let code, let reason): action = state.close(code, reason: reason)
        case .receivedClose(let code): action = state.receivedClose(code)
        case .fail(let violation): action = state.fail(violation)
        }
        #expect(action == transition.action)
        #expect(state == transition.to)
    }
}
