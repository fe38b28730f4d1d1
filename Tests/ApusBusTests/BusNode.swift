import ApusCodec
import ApusPlatform
import FuzzTargets

@testable import ApusBus

/// A worker without connections: a bus on a loop of its own, which runs only when the test says so.
final class BusNode {
    enum Event: Equatable {
        case record(CopiedRecord)
        case gap(Int, Int)
        case requested(InterestTable.Request, UInt64)
        case disturbed(BroadcastBus.Disturbance)
    }

    let loop: EventLoop
    private(set) var bus: BroadcastBus
    var events: [Event] { log.events }
    private let log = Log()

    private final class Log {
        var events: [Event] = []
        var takesMore = true
        var whenReceiving: () -> Void = {}
    }

    /// Whether it reads on when there is more in its mailbox than it reads in a turn.
    var takesMore: Bool {
        get { log.takesMore }
        set { log.takesMore = newValue }
    }

    /// Called before each record is noted.
    var whenReceiving: () -> Void {
        get { log.whenReceiving }
        set { log.whenReceiving = newValue }
    }

    init(
        _ slot: Int, _ mailboxes: Mailboxes, _ interest: InterestTable, generation: Int = 0, limits: BroadcastBus.Limits = .init(),
        poller: (any Poller)? = nil
    ) throws {
        loop = try EventLoop(poller)
        let log = log
        bus = try BroadcastBus(
            place: Mailboxes.place(slot: slot, side: generation % 2), generation: generation, mailboxes: mailboxes, interest: interest,
            loop: loop, limits: limits,
            handlers: .init(
                received: {
                    log.whenReceiving()
                    log.events.append(.record(CopiedRecord($0)))
                }, gap: { log.events.append(.gap($0, $1)) },
                requested: { log.events.append(.requested($0, $1)) }, takesMore: { _ in log.takesMore },
                disturbed: { log.events.append(.disturbed($0)) }))
    }

    /// What a worker does in a turn that has nothing to wait for.
    func turn() throws {
        bus.flush()
        try loop.turn(timeout: .zero)
        bus.flush()
    }

    func clear() { log.events = [] }

    func publish(_ text: String, to topic: String = "t") { publish(Array(text.utf8), isText: true, to: topic) }

    @discardableResult
    func publish(_ payload: [UInt8], isText: Bool, to topic: String = "t") -> Int {
        let name = Array(topic.utf8)
        return bus.publish(topic: name.rawSpan, hash: TopicHash.of(name.rawSpan), isText: isText, payload: payload.rawSpan)
    }

    /// Payloads of publications, and gaps.
    var texts: [String] {
        log.events.map { event in
            switch event {
            case .record(.publication(_, _, _, let payload)): String(decoding: payload.prefix(16), as: UTF8.self)
            case .record(let record): "\(record)"
            case .gap(let sender, let lost): "gap \(sender) \(lost)"
            case .requested(let request, let bits): "\(request) \(bits)"
            case .disturbed(let disturbance): "\(disturbance)"
            }
        }
    }
}
