import Apus
import Testing

/// A handler that traces its callbacks, and then does what the script says.
final class TracedHandler: WebSocketHandler {
    let delivery: Delivery
    let label: String
    /// The socket, from `opened` on.
    private(set) var socket: WebSocket?
    private let trace: Trace

    var whenOpened: (WebSocket) -> Void = { _ in }
    var whenReceived: (WebSocket, Message.Copy) -> Void = { _, _ in }
    var whenFragment: (WebSocket, String) -> Void = { _, _ in }
    var whenWritable: (WebSocket) -> Void = { _ in }
    var whenPong: (WebSocket) -> Void = { _ in }
    var whenMissed: (WebSocket) -> Void = { _ in }
    var whenClosed: (WebSocket) -> Void = { _ in }

    init(_ trace: Trace, label: String = "", delivery: Delivery = .messages) {
        self.trace = trace
        self.label = label
        self.delivery = delivery
    }

    /// Sends back what comes.
    func echoes() -> TracedHandler {
        whenReceived = { socket, message in
            switch message {
            case .text(let text): socket.send(text: text)
            case .binary(let bytes): socket.send(binary: bytes)
            }
        }
        return self
    }

    private func add(_ text: String) { trace.add(.callback, label, text) }

    func opened(_ socket: WebSocket) {
        self.socket = socket
        add("opened" + (socket.subprotocol.map { " subprotocol \($0)" } ?? ""))
        whenOpened(socket)
    }

    func received(_ message: borrowing Message, on socket: WebSocket) {
        let bytes = message.bytes
        add("received \(message.kind) \(bytes.count)\(PayloadText.after(bytes))")
        whenReceived(socket, Message.Copy(message))
    }

    func received(_ fragment: borrowing Fragment, on socket: WebSocket) {
        let bytes = fragment.bytes
        var line = "fragment \(fragment.kind) \(bytes.count)\(PayloadText.after(bytes))"
        if fragment.startsMessage { line += " starts" }
        if fragment.bytesRemainingInFrame > 0 { line += " remaining \(fragment.bytesRemainingInFrame)" }
        if fragment.isFinalFrame { line += " final" }
        if fragment.endsMessage { line += " ends" }
        add(line)
        whenFragment(socket, String(decoding: bytes, as: UTF8.self))
    }

    func writable(_ socket: WebSocket) {
        add("writable")
        whenWritable(socket)
    }

    func pong(_ payload: RawSpan, on socket: WebSocket) {
        add("pong\(PayloadText.after(payload.copied))")
        whenPong(socket)
    }

    func signaled(_ signal: UInt32, payload: [UInt8], on socket: WebSocket) { add("signaled \(signal)\(PayloadText.after(payload))") }

    func missed(_ count: Int, on socket: WebSocket) {
        add("missed \(count)")
        whenMissed(socket)
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        add("closed \(code.rawValue)\(PayloadText.after(reason.utf8))")
        #expect(!socket.isOpen)
        whenClosed(socket)
    }
}

/// A handler of an HTTP answer that traces its callbacks.
final class TracedResponseHandler: HTTPResponseHandler {
    private let trace: Trace
    private let label: String
    var whenContent: (ClientExchange) -> Void = { _ in }

    init(_ trace: Trace, label: String = "") {
        self.trace = trace
        self.label = label
    }

    func received(_ head: HTTPResponseHead, in exchange: ClientExchange) { trace.add(.callback, label, "head \(head.status)") }

    func received(_ content: RawSpan, in exchange: ClientExchange) {
        trace.add(.callback, label, "content \(content.byteCount)\(PayloadText.after(content.copied))")
        whenContent(exchange)
    }

    func ended(_ exchange: ClientExchange) { trace.add(.callback, label, "ended") }

    func failed(_ error: ConnectError, in exchange: ClientExchange) { trace.add(.callback, label, "failed \(error.traceText)") }
}

extension ConnectError {
    /// The stage and the description.
    var traceText: String { "\(stage?.rawValue ?? "-"): \(self)" }
}

extension WebSocket.SendOutcome {
    /// The case alone: how many bytes wait may depend on the kernel.
    var traceText: String {
        switch self {
        case .accepted: "accepted"
        case .buffered: "buffered"
        case .closed: "closed"
        }
    }
}
