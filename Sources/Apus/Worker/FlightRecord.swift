import ApusBus
import ApusCodec
import ApusPlatform
import ApusSupervisor

/// What a worker is serving, in its scoreboard row: four words of shared memory, written before
/// each event, and read by the master after a crash, to log the peer, route and message.
struct FlightRecord {
    enum Activity: UInt8 {
        case nothing = 0
        case handshake, head, request, upgrade, opened, webSocket, pong, writable, signal, timer, closed, task
    }

    /// The connection's peer; nil if it has no address.
    let peer: SocketAddress?
    private let activity: Activity
    /// The index of the route or WebSocket protocol; nil if none is known yet.
    let route: Int?
    /// The index of the address that accepted the connection.
    let place: Int
    /// The message that the handler is processing, if any.
    let message: (kind: MessageKind, bytes: Int)?

    /// Nil if the row records no activity.
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
    private static func what(_ activity: Activity, _ portAndPlace: UInt64, route: UInt16) -> UInt64 {
        portAndPlace | UInt64(activity.rawValue) << 16 | UInt64(route) << 32
    }

    // MARK: Written by the worker

    /// Records that a connection of this origin is being served.
    ///
    /// - Parameter route: the route's index + 1; 0 for none.
    @inline(__always)
    static func note(_ activity: Activity, of origin: PeerOrigin, route: UInt16, in row: Scoreboard.Row) {
        row.serve(hostHigh: origin.hostHigh, hostLow: origin.hostLow, what: what(activity, origin.portAndPlace, route: route))
    }

    /// Records another activity of the same connection.
    static func note(_ activity: Activity, route: UInt16, in row: Scoreboard.Row) {
        let portAndPlace = row.serving.what & 0xffff_0000_0000_ffff
        row.serve(what: what(activity, portAndPlace, route: route), bytes: 0)
    }

    /// Records the message that the handler is processing.
    @inline(__always)
    static func note(_ kind: MessageKind, _ bytes: Int, in row: Scoreboard.Row) {
        row.serve(bytes: (kind == .text ? 1 : 2) << 56 | UInt64(truncatingIfNeeded: bytes) & bytesMask)
    }

    /// Records that jobs of Swift tasks run; their connections are unknown.
    static func noteTask(in row: Scoreboard.Row) { row.serve(hostHigh: 0, hostLow: 0, what: what(.task, 0, route: 0)) }

    // MARK: Read by the master

    /// For the master's log: resolves route indices and addresses.
    func report(_ application: Application, _ addresses: [SocketAddress]) -> Serving {
        if activity == .task { return Serving(peer: nil, route: nil, description: what(nil)) }
        let isWebSocket =
            switch activity {
            case .upgrade, .opened, .webSocket, .pong, .writable, .signal, .closed: true
            case .nothing, .handshake, .head, .request, .timer, .task: false
            }
        let names = isWebSocket ? application.server.protocolNames : application.routes.names
        let name = route.flatMap { $0 < names.count ? names[$0] : nil }
        guard place != Int(PeerOrigin.noPlace) else {
            return Serving(peer: nil, route: name, description: "\(what(name)), on a client connection")
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
