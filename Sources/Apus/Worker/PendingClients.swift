import ApusPlatform

/// Clients that have not sent a request yet, oldest first; evicted when the worker is full.
///
/// The list is linked through the sessions, so that an idle WebSocket costs nothing.
struct PendingClients {
    private(set) var oldest: HTTPSession?
    private var latest: HTTPSession?

    mutating func append(_ session: HTTPSession) {
        session.pending = .waiting(older: latest, newer: nil)
        latest?.setNewer(session)
        latest = session
        if oldest == nil { oldest = session }
    }

    /// Removes a session; no effect if it is not in the list.
    mutating func remove(_ session: HTTPSession) {
        guard case .waiting(let older, let newer) = session.pending else { return }
        session.pending = .no
        older?.setNewer(newer)
        newer?.setOlder(older)
        if oldest === session { oldest = newer }
        if latest === session { latest = older }
    }
}

/// A session's links in the list.
enum PendingLink {
    case no
    case waiting(older: HTTPSession?, newer: HTTPSession?)
}

extension HTTPSession {
    fileprivate func setNewer(_ session: HTTPSession?) {
        if case .waiting(let older, _) = pending { pending = .waiting(older: older, newer: session) }
    }

    fileprivate func setOlder(_ session: HTTPSession?) {
        if case .waiting(_, let newer) = pending { pending = .waiting(older: session, newer: newer) }
    }
}
