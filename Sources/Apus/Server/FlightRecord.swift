import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor

/// What a worker is serving, in its row of shared memory: four words, written before each event and read by the master when the worker has
/// died. So the log can say which peer, route and message did it.
struct FlightRecord {
    enum Activity: UInt8 {
        case nothing = 0
        case handshake, head, request, upgrade, opened, webSocket, pong, writable, signal, timer, closed, task
    }

    /// Whose connection it is; nil: it has no address.
    let peer: SocketAddress?
    let activity: Activity
    /// The number of the route, or of the WebSocket protocol; nil: none is chosen yet.
    let route: Int?
    /// The place of the address that the connection was accepted at.
    let place: Int
    /// Of the message that the handler has; nil: it has none.
    let message: (kind: MessageKind, bytes: Int)?

    /// Nil for nothing.
    init?(_ row: Scoreboard.Row) {
        let words = row.serving
        guard let activity = Activity(rawValue: UInt8(truncatingIfNeeded: words.what >> 16)), activity != .nothing else { return nil }
        self.activity = activity
        peer = SocketAddress(hostWords: (words.hostHigh, words.hostLow), port: UInt16(truncatingIfNeeded: words.what))
        let number = Int(UInt16(truncatingIfNeeded: words.what >> 32))
        route = number > 0 ? number - 1 : nil
        place = Int(UInt16(truncatingIfNeeded: words.what >> 48))
        let bytes = Int(words.bytes & Self.bytesMask)
        message =
            switch words.bytes >> 56 {
            case 1: (.text, bytes)
            case 2: (.binary, bytes)
            default: nil
            }
    }

    private static let bytesMask: UInt64 = 1 << 56 - 1

    @inline(__always)
    static func bytes(of kind: MessageKind, _ count: Int) -> UInt64 {
        (kind == .text ? 1 : 2) << 56 | UInt64(truncatingIfNeeded: count) & bytesMask
    }

    /// - Parameter route: its number and one; 0 for none.
    @inline(__always)
    static func what(_ activity: Activity, _ portAndPlace: UInt64, route: UInt16) -> UInt64 {
        portAndPlace | UInt64(activity.rawValue) << 16 | UInt64(route) << 32
    }

    /// For the log of the master, which knows the routes by their numbers.
    func report(_ application: Application, _ addresses: [SocketAddress]) -> Serving {
        if activity == .task { return Serving(peer: nil, route: nil, description: what(nil)) }
        let isWebSocket =
            switch activity {
            case .upgrade, .opened, .webSocket, .pong, .writable, .signal, .closed: true
            case .nothing, .handshake, .head, .request, .timer, .task: false
            }
        let names = isWebSocket ? application.server.protocolNames : application.routes.names
        let name = route.flatMap { $0 < names.count ? names[$0] : nil }
        guard place != Int(Connection.Origin.noPlace) else {
            return Serving(peer: nil, route: name, description: "\(what(name)) on a connection of its own to another server")
        }
        let from = peer.map { "\($0)" } ?? "a Unix socket"
        let at = place < addresses.count ? " at \(addresses[place])" : ""
        return Serving(peer: peer, route: name, description: "\(what(name)), from \(from)\(at)")
    }

    private func what(_ route: String?) -> String {
        let route = route ?? "an unknown route"
        return
            switch activity
        {
        case .nothing: "nothing"
        case .handshake: "a TLS handshake"
        case .head: "a request that had no route yet"
        case .request: route
        case .upgrade: "the opening handshake of \(route)"
        case .opened: "opened of \(route)"
        case .webSocket:
            message.map { "a \($0.kind == .text ? "text" : "binary") message of \($0.bytes) bytes of \(route)" } ?? "frames of \(route)"
        case .pong: "pong of \(route)"
        case .writable: "writable of \(route)"
        case .signal: "signaled of \(route)"
        case .timer: "a deadline"
        case .task: "a task, or a block of the main queue"
        case .closed: "closed of \(route)"
        }
    }
}

extension Context {
    /// From here on this connection is served.
    ///
    /// - Parameter route: its number and one; 0 for none.
    @inline(__always)
    func serving(_ connection: Connection, _ activity: FlightRecord.Activity, route: UInt16 = 0) {
        guard let row else { return }
        let origin = connection.origin
        row.serve(
            hostHigh: origin.hostHigh, hostLow: origin.hostLow, what: FlightRecord.what(activity, origin.portAndPlace, route: route))
    }

    /// The same connection, something else of it.
    func serving(_ activity: FlightRecord.Activity, route: UInt16) {
        guard let row else { return }
        let portAndPlace = row.serving.what & 0xffff_0000_0000_ffff
        row.serve(what: FlightRecord.what(activity, portAndPlace, route: route), bytes: 0)
    }

    @inline(__always)
    func serving(_ kind: MessageKind, _ bytes: Int) { row?.serve(bytes: FlightRecord.bytes(of: kind, bytes)) }

    /// Jobs of Swift tasks, which may be those of any connection.
    func servingTask() { row?.serve(hostHigh: 0, hostLow: 0, what: FlightRecord.what(.task, 0, route: 0)) }

    @inline(__always)
    func servingNothing() { row?.serve(what: 0) }
}
