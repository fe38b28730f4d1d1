import Apus

/// `/broadcast`: what one sends, all who are there receive, on every worker, the sender included.
final class Broadcaster: WebSocketHandler {
    private static let topic = "broadcast"

    func opened(_ socket: WebSocket) { socket.subscribe(to: Self.topic) }

    func received(_ message: Message, on socket: WebSocket) { socket.context.publish(message, to: Self.topic) }
}

/// `lws-mirror-protocol`: the same, with libwebsockets' flow control. Who sends while a member of its worker cannot keep up is paused; when that
/// member has caught up, all go on.
final class Mirror {
    private static let topic = "lws-mirror-protocol"
    /// A member with more than this waiting, in bytes, holds the senders back: well below the limit that would close it.
    private static let highWater = 256 * 1024
    /// This worker's members.
    private var members: [ObjectIdentifier: WebSocket] = [:]

    final class Member: WebSocketHandler {
        private let mirror: Mirror

        init(of mirror: Mirror) { self.mirror = mirror }

        func opened(_ socket: WebSocket) {
            mirror.members[ObjectIdentifier(socket)] = socket
            socket.subscribe(to: Mirror.topic)
        }

        func received(_ message: Message, on socket: WebSocket) {
            socket.context.publish(message, to: Mirror.topic)
            mirror.holdBack(socket)
        }

        func writable(_ socket: WebSocket) { socket.context.resumeReceiving(all: socket.webSocketProtocol, scope: .worker) }

        func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
            mirror.members[ObjectIdentifier(socket)] = nil
            // It may have been the one that the others wait for.
            socket.context.resumeReceiving(all: socket.webSocketProtocol, scope: .worker)
        }
    }

    private func holdBack(_ sender: WebSocket) {
        for member in members.values where member.bufferedBytes > Self.highWater {
            sender.pauseReceiving()
            member.requestWritable()
        }
    }
}
