import Apus
import Testing

/// A handler that notes what it is told, and does what the test says in each callback.
final class RecordingHandler: WebSocketHandler {
    let delivery: Delivery
    /// What happened, in order: `opened`, `text Hello`, `binary [1, 2]`, `writable`, `pong x`, `closed 1000 bye`.
    private(set) var events: [String] = []
    /// The last socket that opened.
    private(set) var socket: WebSocket?

    var whenOpened: (WebSocket) -> Void = { _ in }
    var whenReceived: (WebSocket, Message.Copy) -> Void = { _, _ in }
    var whenWritable: (WebSocket) -> Void = { _ in }
    var whenMissed: (WebSocket) -> Void = { _ in }
    var whenPong: (WebSocket) -> Void = { _ in }
    var whenClosed: (WebSocket) -> Void = { _ in }

    init(delivery: Delivery = .messages) { self.delivery = delivery }

    /// A handler that sends back what comes.
    static func echo() -> RecordingHandler {
        let script = RecordingHandler()
        script.whenReceived = { socket, message in
            switch message {
            case .text(let text): socket.send(text: text)
            case .binary(let bytes): socket.send(binary: bytes)
            }
        }
        return script
    }

    /// Lets go of the socket, which holds this handler in turn.
    func forgetSocket() { socket = nil }

    func count(_ prefix: String) -> Int { events.count { $0.hasPrefix(prefix) } }
    /// How the connections ended.
    var endings: [String] { events.filter { $0.hasPrefix("closed") } }
    /// All but the opening and the end.
    var middle: [String] { events.filter { !$0.hasPrefix("closed") && $0 != "opened" } }

    func opened(_ socket: WebSocket) {
        self.socket = socket
        events.append("opened")
        whenOpened(socket)
    }

    func received(_ message: borrowing Message, on socket: WebSocket) {
        let copy = Message.Copy(message)
        switch copy {
        case .text(let text): events.append("text \(text)")
        case .binary(let bytes): events.append(bytes.count > 20 ? "binary of \(bytes.count)" : "binary \(bytes)")
        }
        whenReceived(socket, copy)
    }

    func received(_ fragment: borrowing Fragment, on socket: WebSocket) {
        let text = String(decoding: fragment.bytes, as: UTF8.self)
        var notes = "fragment \(fragment.kind) '\(text)'"
        if fragment.startsMessage { notes += " starts" }
        if fragment.bytesRemainingInFrame > 0 { notes += " owes \(fragment.bytesRemainingInFrame)" }
        if fragment.isFinalFrame { notes += " final" }
        if fragment.endsMessage { notes += " ends" }
        events.append(notes)
        whenReceived(socket, .text(text))
    }

    func writable(_ socket: WebSocket) {
        events.append("writable")
        if socket.hasBufferedOutput { events.append("writable with output buffered") }
        whenWritable(socket)
    }

    func pong(_ payload: RawSpan, on socket: WebSocket) {
        events.append("pong \(payload.string)")
        whenPong(socket)
    }

    func signaled(_ signal: UInt32, payload: [UInt8], on socket: WebSocket) { events.append("signal \(signal) \(payload)") }

    func missed(_ count: Int, on socket: WebSocket) {
        events.append("missed \(count)")
        whenMissed(socket)
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        events.append(reason.isEmpty ? "closed \(code.rawValue)" : "closed \(code.rawValue) \(reason)")
        #expect(!socket.isOpen)
        whenClosed(socket)
    }
}

extension Message {
    /// A message that may be kept.
    enum Copy {
        case text(String)
        case binary([UInt8])

        init(_ message: borrowing Message) {
            switch message.kind {
            case .text: self = .text(message.text ?? "")
            case .binary: self = .binary(message.bytes)
            }
        }
    }
}
