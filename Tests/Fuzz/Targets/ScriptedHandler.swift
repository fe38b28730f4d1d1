import Apus
import ApusCodec

/// A handler that does what the script says whenever it is called, and checks that it is called in order.
final class ScriptedHandler: WebSocketHandler {
    private enum Life { case new, open, ended }

    let delivery: Delivery
    let isClient: Bool
    private(set) var socket: WebSocket?
    private unowned let stage: Stage
    private var script: Script { stage.script }
    private var life = Life.new
    private var hasFailed = false
    private var isSendingFragments = false
    /// Nothing may be delivered: paused, closing or terminated.
    private var isPaused = false
    private var isEnding = false
    /// `send` has refused: the socket takes nothing any more.
    private var hasRefused = false
    private var isInsideMessage = false
    private var wantsWritable = false

    init(_ stage: Stage, delivery: Delivery, isClient: Bool) {
        self.stage = stage
        self.delivery = delivery
        self.isClient = isClient
    }

    // MARK: Events

    func opened(_ socket: WebSocket) {
        require(life == .new && !hasFailed, "opened once")
        require(isClient || socket.request != nil, "the request is there")
        life = .open
        self.socket = socket
        perform(script.byte())
    }

    func received(_ message: Message, on socket: WebSocket) {
        checkDelivery(socket)
        require(delivery == .messages, "whole messages were asked for")
        require(message.kind == .binary || String(validating: message.bytes, as: UTF8.self) != nil, "text is UTF-8")
        let choice = script.byte()
        if choice == 1, canSend { socket.send(message) } else { perform(choice) }
    }

    func received(_ fragment: Fragment, on socket: WebSocket) {
        checkDelivery(socket)
        require(delivery == .fragments, "fragments were asked for")
        require(fragment.startsMessage == !isInsideMessage, "messages begin and end in turn")
        isInsideMessage = !fragment.endsMessage
        perform(script.byte())
    }

    func writable(_ socket: WebSocket) {
        checkLife(socket)
        require(wantsWritable && !socket.hasBufferedOutput, "asked for, and nothing is buffered")
        wantsWritable = false
        perform(script.byte())
    }

    func pong(_ payload: RawSpan, on socket: WebSocket) {
        checkDelivery(socket)
        require(payload.byteCount <= 125)
        perform(script.byte())
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        require(life == .open && socket === self.socket, "closed once, after opened")
        require(!socket.isOpen && socket.peer == nil && socket.descriptor == nil && socket.bufferedBytes == 0)
        require(code.mayBeSent || code == .noStatus || code == .abnormal, "\(code)")
        life = .ended
        perform(script.byte())
        self.socket = nil
    }

    /// The attempt to connect failed.
    func failed() {
        require(isClient && life == .new && !hasFailed, "failed once, and never opened")
        hasFailed = true
    }

    private func checkLife(_ socket: WebSocket) {
        require(life == .open && socket === self.socket, "events come between opened and closed")
        require(!isEnding, "nothing comes after close or terminate but closed")
    }

    private func checkDelivery(_ socket: WebSocket) {
        checkLife(socket)
        require(!isPaused, "nothing is delivered while receiving is paused")
    }

    /// Whether a client has been told how its attempt ended.
    var hasOutcome: Bool { !isClient || life != .new || hasFailed }

    func checkEnd() {
        require(life != .open, "closed is called for every opened")
        require(!isClient || life == .ended || hasFailed, "a client is told how its attempt ended")
    }

    // MARK: Actions

    private var canSend: Bool { !isSendingFragments }

    private static let codes: [CloseCode] = [.normal, .goingAway, .noStatus, CloseCode(rawValue: 4999), .internalError]

    /// What the script says, on this handler's socket.
    func perform(_ choice: UInt8) {
        guard let socket else { return }
        let parameter = choice >> 4
        switch choice & 15 {
        case 1: if canSend { check(socket.send([UInt8](repeating: 0x74, count: script.size(parameter)), as: .text), socket) }
        case 2: if canSend { check(socket.send(binary: [UInt8](repeating: 0x62, count: script.size(parameter))), socket) }
        case 3, 4:
            let isLast = choice & 15 == 4
            isSendingFragments = !isLast
            let payload = [UInt8](repeating: 0x66, count: script.size(parameter))
            check(socket.sendFragment(payload.rawSpan, as: parameter & 1 == 0 ? .text : .binary, isLast: isLast), socket)
        case 5:
            socket.close(
                code: Self.codes[Int(parameter) % Self.codes.count], reason: String(repeating: "ü", count: Int(parameter) * 10))
            require(!socket.isOpen, "closed to sending at once")
            isEnding = true
        case 6:
            socket.terminate()
            require(!socket.isOpen, "closed to sending at once")
            isEnding = true
        case 7:
            socket.pauseReceiving()
            isPaused = true
        case 8:
            socket.resumeReceiving()
            isPaused = false
        case 9:
            if socket.isOpen { wantsWritable = true }
            socket.requestWritable()
        case 10: setDeadline(parameter, socket)
        case 11: check(socket.ping([UInt8](repeating: 0x70, count: min(125, script.size(parameter)))), socket)
        case 12:
            perform(script.byte())
            perform(script.byte())
        case 13:
            socket.worker.schedule(after: .milliseconds(parameter & 1)) { [weak self] in
                guard let self else { return }
                perform(script.byte())
            }
        case 14: socket.worker.wakeUp()
        case 15: if let other = stage.pick(parameter), other !== self { other.perform(script.byte() & 0xF7) }
        default: break
        }
    }

    private func check(_ outcome: WebSocket.SendOutcome, _ socket: WebSocket) {
        switch outcome {
        case .accepted: require(!isEnding && !hasRefused && life == .open)
        case .buffered(let bytes): require(bytes > 0 && !isEnding && !hasRefused && life == .open)
        case .closed:
            require(!socket.isOpen, "only a socket that is not open refuses")
            // After a failed write, what the peer had sent before is still delivered.
            hasRefused = true
        }
    }

    private func setDeadline(_ parameter: UInt8, _ socket: WebSocket) {
        switch parameter & 3 {
        case 0: socket.setDeadline(after: .zero)
        case 1: socket.setDeadline(after: .milliseconds(1), code: .goingAway)
        case 2: socket.setDeadline(after: .seconds(3600))
        default: socket.setDeadline(after: nil)
        }
    }
}
