import ApusPlatform

/// The clients that have not made a request yet, in the order in which they came. They may be asked to leave when there is no room for others.
///
/// A list through the sessions themselves, so that an idle WebSocket, which has none, costs nothing.
struct Newcomers {
    private(set) var oldest: HTTPSession?
    private var latest: HTTPSession?

    mutating func append(_ session: HTTPSession) {
        session.newcomer = .waiting(older: latest, newer: nil)
        latest?.setNewer(session)
        latest = session
        if oldest == nil { oldest = session }
    }

    /// Does nothing to one that has left already.
    mutating func remove(_ session: HTTPSession) {
        guard case .waiting(let older, let newer) = session.newcomer else { return }
        session.newcomer = .no
        older?.setNewer(newer)
        newer?.setOlder(older)
        if oldest === session { oldest = newer }
        if latest === session { latest = older }
    }
}

/// Whether a session is among the newcomers, and between whom.
enum Newcomer {
    case no
    case waiting(older: HTTPSession?, newer: HTTPSession?)
}

extension HTTPSession {
    fileprivate func setNewer(_ session: HTTPSession?) {
        if case .waiting(let older, _) = newcomer { newcomer = .waiting(older: older, newer: session) }
    }

    fileprivate func setOlder(_ session: HTTPSession?) {
        if case .waiting(_, let newer) = newcomer { newcomer = .waiting(older: session, newer: newer) }
    }
}
