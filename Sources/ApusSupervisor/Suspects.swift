package import ApusPlatform

/// What a worker was serving when it died, as its own record says.
package struct Serving: Sendable, Equatable, CustomStringConvertible {
    /// Nil: it has no address.
    package let peer: SocketAddress?
    /// Its name; nil: none had been chosen yet.
    package let route: String?
    /// For the log.
    package let description: String

    package init(peer: SocketAddress?, route: String?, description: String) {
        self.peer = peer
        self.route = route
        self.description = description
    }
}

/// Peers and routes that were being served when workers died: whoever was in three deaths within a minute is named. A pure state machine.
struct Suspects {
    enum Suspect: Hashable {
        /// Whatever its port.
        case peer(SocketAddress)
        case route(String)
    }

    static let deaths = 3
    static let window = Duration.seconds(60)

    private var seen: [Suspect: [MonotonicTime]] = [:]
    /// Until when those who have been named are not named again.
    private var quiet: [Suspect: MonotonicTime] = [:]

    /// A worker has died while it served that. Gives who is to be named now, once a minute at most, and with how many deaths.
    mutating func died(serving: Serving, at now: MonotonicTime) -> [(suspect: Suspect, deaths: Int)] {
        quiet = quiet.filter { now < $0.value }
        for (suspect, times) in seen {
            let recent = times.filter { now < $0 + Self.window }
            seen[suspect] = recent.isEmpty ? nil : recent
        }
        let suspects = [serving.peer.map { Suspect.peer($0.withPort(0)) }, serving.route.map { Suspect.route($0) }].compactMap(\.self)
        return suspects.compactMap { suspect in
            seen[suspect, default: []].append(now)
            let deaths = seen[suspect, default: []].count
            guard deaths >= Self.deaths, quiet[suspect] == nil else { return nil }
            quiet[suspect] = now + Self.window
            return (suspect, deaths)
        }
    }
}

/// Peers that are turned away, and until when.
struct Quarantine {
    static let period = Duration.seconds(60)

    private var ends: [SocketAddress: MonotonicTime] = [:]

    mutating func add(_ peer: SocketAddress, at now: MonotonicTime) { ends[peer] = now + Self.period }

    /// Those that are turned away now.
    mutating func present(at now: MonotonicTime) -> [(peer: SocketAddress, end: MonotonicTime)] {
        ends = ends.filter { now < $0.value }
        return ends.map { (peer: $0.key, end: $0.value) }
    }
}
