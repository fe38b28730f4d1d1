import ApusPlatform
import Synchronization

/// What other threads may ask of a context. Get it on the context's thread, use it anywhere; the context acts in its next turn.
public final class ContextRemote: Sendable {
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

        /// Commands that need not stand twice in a row.
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

    /// What may wait for the context, in commands and in bytes.
    private static let maxCommands = 65_536
    private static let maxBytes = 64 << 20

    init(_ waker: Waker) { self.waker = waker }

    /// As `Context.publish`. False if the context is so far behind that nothing more is kept for it.
    @discardableResult
    public func publish(_ payload: [UInt8], as kind: MessageKind, to topic: String) -> Bool { add(.publish(payload, kind, topic: topic)) }

    /// As `Context.signal`.
    @discardableResult
    public func signal(all webSocketProtocol: WebSocketProtocol.ID, _ signal: UInt32, payload: [UInt8] = []) -> Bool {
        add(.signal(webSocketProtocol, signal, payload))
    }

    /// As `Context.requestWritable`.
    @discardableResult
    public func requestWritable(all webSocketProtocol: WebSocketProtocol.ID) -> Bool { add(.requestWritable(webSocketProtocol)) }

    /// As `Context.resumeReceiving`.
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

    /// What has been asked since the last call.
    func take() -> [Command] {
        inbox.withLock { inbox in
            defer { inbox = Inbox() }
            return inbox.commands
        }
    }
}
