import ApusBus
import ApusCodec

/// Publishes, signals and requests to all workers from any thread of the master or of a process
/// that it forked. `Server.onStart` receives it.
///
/// No call blocks or queues. A record that does not fit a worker's mailbox (megabytes) is dropped,
/// counted in `dropped`, and reported to that worker's subscribers by `missed`. Each call is one
/// system call per interested worker: to publish much, publish in a worker.
public final class ServerRemote: Sendable {
    private let externalSender: ExternalSender

    init(_ externalSender: ExternalSender) { self.externalSender = externalSender }

    /// As `Worker.publish`.
    ///
    /// - Returns: false if the record was dropped for a worker with subscribers, or if the topic
    ///   has more than 65,535 bytes.
    @discardableResult
    public func publish(_ payload: [UInt8], as kind: MessageKind, to topic: String) -> Bool {
        topic.withRawSpan { name in
            guard name.byteCount <= Topic.maxNameBytes else { return false }
            return externalSender.publish(topic: name, hash: TopicHash.of(name), isText: kind == .text, payload: payload.rawSpan)
        }
    }

    /// As `Worker.signal`.
    ///
    /// - Returns: false if the record was dropped for a worker with connections of the protocol, or
    ///   if the protocol is a client's.
    @discardableResult
    public func signal(all webSocketProtocol: WebSocketProtocol.ID, _ signal: UInt32, payload: [UInt8] = []) -> Bool {
        // Client protocols are local to their process.
        webSocketProtocol.client == nil && externalSender.signal(protocolIndex: webSocketProtocol.index, signal, payload: payload.rawSpan)
    }

    /// As `Worker.requestWritable`.
    public func requestWritable(all webSocketProtocol: WebSocketProtocol.ID) {
        if webSocketProtocol.client == nil { externalSender.request(.writable, protocolIndex: webSocketProtocol.index) }
    }

    /// As `Worker.resumeReceiving`.
    public func resumeReceiving(all webSocketProtocol: WebSocketProtocol.ID) {
        if webSocketProtocol.client == nil { externalSender.request(.resume, protocolIndex: webSocketProtocol.index) }
    }

    /// Publications and signals of this process that were dropped, counted once per worker.
    public var dropped: Int { externalSender.recordsDropped }
}
