import ApusPlatform
import Logging

/// The death of a worker process.
struct DeathRecord {
    let slot: Int
    let pid: Int32
    let death: WorkerDeath
    /// What follows.
    let decision: WorkerSlot.RestartDecision
    /// The process ended by itself, by order of the master.
    let wasOrdered: Bool
    let uptimeMilliseconds: UInt64
    /// What the worker was serving; nil: nothing.
    let serving: Serving?
    /// Connections that were closed by the death.
    let connections: Int
}

/// Logs deaths of workers, counts them, and finds peers and routes that were being served when
/// several workers died.
final class DeathLog {
    private let resources: MasterResources
    private var counts = DeathCounts()
    private var suspects = Suspects()
    private var quarantine = Quarantine()
    /// What the worker that died last was serving.
    private var lastServing: String?

    init(_ resources: MasterResources) { self.resources = resources }

    /// `1 trap, 2 killed, the last serving GET /items, from 10.0.0.7:4711 at …`; empty if no worker
    /// has died.
    var summary: String {
        let counts = "\(counts)"
        guard !counts.isEmpty, let lastServing else { return counts }
        return "\(counts), the last serving \(lastServing)"
    }

    /// Peers that are refused now.
    func quarantinedPeers(now: MonotonicTime) -> [QuarantinedPeer] { quarantine.peers(now: now) }

    /// Logs a death.
    ///
    /// - Parameter usesQuarantine: Whether suspect peers are quarantined.
    /// - Returns: The peers that workers shall refuse from now on.
    func record(_ record: DeathRecord, usesQuarantine: Bool) -> [QuarantinedPeer] {
        let what = record.serving.map { ", serving \($0)" } ?? ""
        let uptime = Uptime.text(record.uptimeMilliseconds)
        let text: Logger.Message =
            "worker \(record.slot) (pid \(record.pid)) ended: \(record.death) after \(uptime)\(what); \(record.decision)"
        guard !record.wasOrdered else {
            resources.logger.info(text)
            return []
        }
        var metadata = counts.add(record.death)
        metadata["connections"] = "\(record.connections)"
        resources.logger.warning(text, metadata: metadata)
        guard let serving = record.serving else { return [] }
        lastServing = serving.description
        // The sender and the reason of SIGKILL are unknown: an operator, or the kernel without
        // memory.
        switch record.death.kind {
        case .killed, .exit, .signal: return []
        case .violation, .trap, .segfault, .aborted: break
        }
        return nameSuspects(serving, usesQuarantine: usesQuarantine)
    }

    private func nameSuspects(_ serving: Serving, usesQuarantine: Bool) -> [QuarantinedPeer] {
        let now = resources.loop.now
        var refused: [QuarantinedPeer] = []
        for (suspect, deaths) in suspects.died(serving: serving, at: now) {
            let start = "\(deaths) workers have died within a minute while they served"
            switch suspect {
            case .route(let name):
                resources.logger.error("\(start) \(name)")
            case .peer(let peer):
                let seconds = Quarantine.period.wholeMilliseconds / 1000
                let measure = usesQuarantine ? "it is turned away for \(seconds) s" : "quarantine is off"
                resources.logger.error("\(start) \(peer.host): \(measure)")
                if usesQuarantine { refused.append(quarantine.add(peer, now: now)) }
            }
        }
        return refused
    }
}

/// How many workers have died since the master started, by kind of death. Deaths by order of the
/// master do not count.
struct DeathCounts: Sendable {
    private var counts: [WorkerDeath.Kind: Int] = [:]

    subscript(kind: WorkerDeath.Kind) -> Int { counts[kind, default: 0] }

    /// Counts a death.
    ///
    /// - Returns: The new count of its kind, as metadata of the log line.
    mutating func add(_ death: WorkerDeath) -> Logger.Metadata {
        counts[death.kind, default: 0] += 1
        return [death.kind.rawValue: "\(self[death.kind])"]
    }
}

extension DeathCounts: CustomStringConvertible {
    /// `1 trap, 2 killed`; empty if no worker has died.
    var description: String {
        WorkerDeath.Kind.allCases.filter { self[$0] > 0 }.map { "\(self[$0]) \($0.rawValue)" }
            .joined(separator: ", ")
    }
}

/// How log lines write a duration.
enum Uptime {
    /// `12.3 s`
    static func text(_ milliseconds: UInt64) -> String {
        "\(milliseconds / 1000).\(milliseconds % 1000 / 100) s"
    }
}
