import ApusBus
import ApusPlatform
import Synchronization

/// Publishes, signals and requests from other threads. Get it on the worker's thread, use it on
/// any; the worker acts in its next turn.
public final class WorkerRemote: Sendable {
    private struct Inbox {
        var commands: [Command] = []
        var bytes = 0
    }

    enum Command: Sendable {
        case publish([UInt8], MessageKind, topic: String)
        case signal(WebSocketProtocol.ID, UInt32, [UInt8])
        case requestWritable(WebSocketProtocol.ID)
        case resumeReceiving(WebSocketProtocol.ID)

        fileprivate var bytes: Int {
            switch self {
            case .publish(let payload, _, let topic): payload.count + topic.utf8.count
            case .signal(_, _, let payload): payload.count
            case .requestWritable, .resumeReceiving: 0
            }
        }

        /// Whether executing this after an equal command would change nothing.
        fileprivate func repeats(_ other: Command?) -> Bool {
            switch (self, other) {
            case (.requestWritable(let one), .requestWritable(let two)?), (.resumeReceiving(let one), .resumeReceiving(let two)?):
                one == two
            default: false
            }
        }
    }

    private let inbox = Mutex(Inbox())
    private let waker: Waker

    /// Most commands queued for the worker, and most bytes.
    private static let maxCommands = 65_536
    private static let maxBytes = 64 << 20

    init(_ waker: Waker) { self.waker = waker }

    /// As `Worker.publish`.
    ///
    /// - Returns: false if the worker's command queue is full.
    @discardableResult
    public func publish(_ payload: [UInt8], as kind: MessageKind, to topic: String) -> Bool { add(.publish(payload, kind, topic: topic)) }

    /// As `Worker.signal`.
    ///
    /// - Returns: false if the worker's command queue is full.
    @discardableResult
    public func signal(all webSocketProtocol: WebSocketProtocol.ID, _ signal: UInt32, payload: [UInt8] = []) -> Bool {
        add(.signal(webSocketProtocol, signal, payload))
    }

    /// As `Worker.requestWritable`.
    ///
    /// - Returns: false if the worker's command queue is full.
    @discardableResult
    public func requestWritable(all webSocketProtocol: WebSocketProtocol.ID) -> Bool { add(.requestWritable(webSocketProtocol)) }

    /// As `Worker.resumeReceiving`.
    ///
    /// - Returns: false if the worker's command queue is full.
    @discardableResult
    public func resumeReceiving(all webSocketProtocol: WebSocketProtocol.ID) -> Bool { add(.resumeReceiving(webSocketProtocol)) }

    private func add(_ command: Command) -> Bool {
        let (accepted, isFirst) = inbox.withLock { inbox -> (Bool, Bool) in
            if command.repeats(inbox.commands.last) { return (true, false) }
            guard inbox.commands.count < Self.maxCommands, inbox.bytes + command.bytes <= Self.maxBytes else { return (false, false) }
            inbox.commands.append(command)
            inbox.bytes += command.bytes
            return (true, inbox.commands.count == 1)
        }
        if isFirst { waker.wakeUp() }
        return accepted
    }

    /// Executes what was requested since the last call, on the worker's thread.
    func serve(_ worker: Worker) {
        for command in take() {
            switch command {
            case .publish(let payload, let kind, let topic): worker.publish(payload, as: kind, to: topic)
            case .signal(let id, let number, let payload):
                worker.broker.signal(all: id, number, payload: payload, scope: .allWorkers)
            case .requestWritable(let id): worker.broker.request(.writable, id, .allWorkers)
            case .resumeReceiving(let id): worker.broker.request(.resume, id, .allWorkers)
            }
        }
    }

    private func take() -> [Command] {
        inbox.withLock { inbox in
            defer { inbox = Inbox() }
            return inbox.commands
        }
    }
}
