import Apus

/// `/broadcast`: each message is delivered to all connections of all workers, including the sender.
final class Broadcaster: WebSocketHandler {
    private static let topic = "broadcast"

    func opened(_ socket: WebSocket) { socket.subscribe(to: Self.topic) }

    func received(_ message: Message, on socket: WebSocket) { socket.worker.publish(message, to: Self.topic) }
}

/// `lws-mirror-protocol`: like `/broadcast`, with libwebsockets' flow control. A member that sends
/// while another one of its worker is slow is paused; all resume when the slow one has caught up.
/// Each worker has one mirror for two protocols: the page's drawing board also receives the
/// worker's identity.
final class Mirror {
    private static let topic = "lws-mirror-protocol"
    /// Bytes of buffered output above which a member counts as slow; well below the limit at which
    /// it would be closed.
    private static let highWater = 256 * 1024
    /// This worker's members.
    private var members: [ObjectIdentifier: WebSocket] = [:]

    class Member: WebSocketHandler {
        private let state: WorkerState<Mirror>

        init(of state: WorkerState<Mirror>) { self.state = state }

        func opened(_ socket: WebSocket) {
            socket.worker[state].members[ObjectIdentifier(socket)] = socket
            socket.subscribe(to: Mirror.topic)
        }

        func received(_ message: Message, on socket: WebSocket) {
            socket.worker.publish(message, to: Mirror.topic)
            socket.worker[state].pauseIfSlow(socket)
        }

        func writable(_ socket: WebSocket) { socket.worker[state].resumeMembers() }

        func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
            socket.worker[state].members[ObjectIdentifier(socket)] = nil
            // It may have been the slow one.
            socket.worker[state].resumeMembers()
        }
    }

    /// A member that first receives the identity of its worker.
    final class BoardMember: Member {
        override func opened(_ socket: WebSocket) {
            socket.send(text: WorkerName.json(of: socket.worker.identity))
            super.opened(socket)
        }
    }

    private func resumeMembers() {
        for member in members.values { member.resumeReceiving() }
    }

    private func pauseIfSlow(_ sender: WebSocket) {
        for member in members.values where member.bufferedBytes > Self.highWater {
            sender.pauseReceiving()
            member.requestWritable()
        }
    }
}
