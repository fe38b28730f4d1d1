/// The open connections of a worker.
final class ConnectionTable {
    private var connections: [Connection] = []

    var count: Int { connections.count }
    var isEmpty: Bool { connections.isEmpty }

    func add(_ connection: Connection) {
        connection.index = Int32(connections.count)
        connections.append(connection)
    }

    func remove(_ connection: Connection) {
        let index = Int(connection.index)
        let last = connections.removeLast()
        guard last !== connection else { return }
        connections[index] = last
        last.index = Int32(index)
    }

    /// A copy, because work on a connection may change the table.
    var all: [Connection] { connections }

    /// The open WebSockets, including this worker's client connections.
    var openWebSockets: [WebSocket] { connections.compactMap { $0.session?.openWebSocket } }

    /// The open WebSockets of server connections.
    var servedWebSockets: [WebSocket] { openWebSockets.filter { $0.role == .server } }

    /// The open WebSockets with this protocol, including client connections.
    func openWebSockets(of id: WebSocketProtocol.ID) -> [WebSocket] { openWebSockets.filter { $0.webSocketProtocol.id == id } }
}
