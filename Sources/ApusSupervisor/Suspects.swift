package import ApusPlatform

/// What a worker is serving, read from its row of the scoreboard.
package struct Serving: Sendable, Equatable, CustomStringConvertible {
    /// Nil: the peer has no address.
    package let peer: SocketAddress?
    /// The name of the route; nil: none was chosen yet.
    package let route: String?
    /// The text for the log.
    package let description: String

    package init(peer: SocketAddress?, route: String?, description: String) {
        self.peer = peer
        self.route = route
        self.description = description
    }
}

/// Finds peers and routes that were being served in three deaths of workers within a minute. A pure
/// state machine.
struct Suspects {
    enum Suspect: Hashable {
        /// Its port is 0: all ports of the host count.
        case peer(SocketAddress)
        case route(String)
    }

    static let deaths = 3
    static let window = Duration.seconds(60)

    private var deathTimes: [Suspect: [MonotonicTime]] = [:]
    /// Suspects that were reported, and until when they are not reported again.
    private var muted: [Suspect: MonotonicTime] = [:]

    /// A worker has died while it served `serving`.
    ///
    /// - Returns: The suspects to report now, each at most once a minute, with their deaths.
    mutating func died(serving: Serving, at now: MonotonicTime) -> [(suspect: Suspect, deaths: Int)] {
        muted = muted.filter { now < $0.value }
        deathTimes = deathTimes.compactMapValues { times in
            let recent = times.filter { now < $0 + Self.window }
            return recent.isEmpty ? nil : recent
        }
        let peer = serving.peer.map { Suspect.peer($0.withPort(0)) }
        let route = serving.route.map { Suspect.route($0) }
        return [peer, route].compactMap(\.self).compactMap { suspect in
            deathTimes[suspect, default: []].append(now)
            let deaths = deathTimes[suspect, default: []].count
            guard deaths >= Self.deaths, muted[suspect] == nil else { return nil }
            muted[suspect] = now + Self.window
            return (suspect, deaths)
        }
    }
}

/// A peer that workers refuse, and until when.
package typealias QuarantinedPeer = (peer: SocketAddress, end: MonotonicTime)

/// The peers that workers refuse.
struct Quarantine {
    static let period = Duration.seconds(60)

    private var ends: [SocketAddress: MonotonicTime] = [:]

    mutating func add(_ peer: SocketAddress, now: MonotonicTime) -> QuarantinedPeer {
        ends[peer] = now + Self.period
        return (peer, now + Self.period)
    }

    mutating func peers(now: MonotonicTime) -> [QuarantinedPeer] {
        ends = ends.filter { now < $0.value }
        return ends.map { (peer: $0.key, end: $0.value) }
    }
}
