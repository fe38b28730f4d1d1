import ApusBus
import ApusCodec

/// What the master may ask of all workers, or a process that it has forked, from any thread. `Server.whenStarting` hands it out.
///
/// Nothing here blocks or queues: what a worker's mailbox has no room for now (it holds megabytes) is dropped, counted in `dropped`, and told to
/// that worker's subscribers by `missed`. Each call is a system call per interested worker: to publish much, publish in a worker.
public final class ServerRemote: Sendable {
    private let outsider: Outsider

    init(_ outsider: Outsider) { self.outsider = outsider }

    /// As `Context.publish`. False if a worker with subscribers does not get it, or if the topic has more than 65,535 bytes.
    @discardableResult
    public func publish(_ payload: [UInt8], as kind: MessageKind, to topic: String) -> Bool {
        topic.withRawSpan { name in
            guard name.byteCount <= Topic.maxNameBytes else { return false }
            return outsider.publish(topic: name, hash: TopicHash.of(name), isText: kind == .text, payload: payload.rawSpan)
        }
    }

    /// As `Context.signal`. False if a worker with connections of the protocol does not get it.
    @discardableResult
    public func signal(all webSocketProtocol: WebSocketProtocol.ID, _ signal: UInt32, payload: [UInt8] = []) -> Bool {
        // A client's connections are their own process's alone.
        webSocketProtocol.client == nil && outsider.signal(protocolIndex: webSocketProtocol.index, signal, payload: payload.rawSpan)
    }

    /// As `Context.requestWritable`.
    public func requestWritable(all webSocketProtocol: WebSocketProtocol.ID) {
        if webSocketProtocol.client == nil { outsider.request(.writable, protocolIndex: webSocketProtocol.index) }
    }

    /// As `Context.resumeReceiving`.
    public func resumeReceiving(all webSocketProtocol: WebSocketProtocol.ID) {
        if webSocketProtocol.client == nil { outsider.request(.resume, protocolIndex: webSocketProtocol.index) }
    }

    /// Publications and signals that a worker did not get from this process, counted for each worker.
    public var dropped: Int { outsider.recordsDropped }
}
