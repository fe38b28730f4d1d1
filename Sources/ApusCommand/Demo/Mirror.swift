import Apus

/// `/broadcast`: what one sends, all who are there receive, on every worker, the sender included.
final class Broadcaster: WebSocketHandler {
    private static let topic = "broadcast"

    func opened(_ socket: WebSocket) { socket.subscribe(to: Self.topic) }

    func received(_ message: Message, on socket: WebSocket) { socket.context.publish(message, to: Self.topic) }
}

/// `lws-mirror-protocol`: the same, with libwebsockets' flow control. Who sends while a member of its worker cannot keep up is paused; when that
/// member has caught up, all go on. Each worker has one, with two protocols: the page's drawing board is told which worker it is on.
final class Mirror {
    private static let topic = "lws-mirror-protocol"
    /// A member with more than this waiting, in bytes, holds the senders back: well below the limit that would close it.
    private static let highWater = 256 * 1024
    /// This worker's members.
    private var members: [ObjectIdentifier: WebSocket] = [:]

    class Member: WebSocketHandler {
        private let state: WorkerState<Mirror>

        init(of state: WorkerState<Mirror>) { self.state = state }

        func opened(_ socket: WebSocket) {
            socket.context[state].members[ObjectIdentifier(socket)] = socket
            socket.subscribe(to: Mirror.topic)
        }

        func received(_ message: Message, on socket: WebSocket) {
            socket.context.publish(message, to: Mirror.topic)
            socket.context[state].holdBack(socket)
        }

        func writable(_ socket: WebSocket) { socket.context[state].goOn() }

        func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
            socket.context[state].members[ObjectIdentifier(socket)] = nil
            // It may have been the one that the others wait for.
            socket.context[state].goOn()
        }
    }

    /// A member that is told which worker serves it, before anything else.
    final class BoardMember: Member {
        override func opened(_ socket: WebSocket) {
            socket.send(text: WorkerName.json(of: socket.context.worker))
            super.opened(socket)
        }
    }

    private func goOn() {
        for member in members.values { member.resumeReceiving() }
    }

    private func holdBack(_ sender: WebSocket) {
        for member in members.values where member.bufferedBytes > Self.highWater {
            sender.pauseReceiving()
            member.requestWritable()
        }
    }
}
