import Apus

/// A client of the engine's that traces what becomes of its attempt.
final class TracedClient {
    let handler: TracedHandler
    private let server: TracedServer
    private let label: String
    private(set) var connection: ClientConnection?
    /// Thrown to refuse an answer.
    var refusal: Rejection?

    init(_ server: TracedServer, label: String = "", delivery: Delivery = .messages) {
        self.server = server
        self.label = label
        handler = TracedHandler(server.trace, label: label, delivery: delivery)
    }

    /// Connects; `url` is traced as far as it is the same in each run.
    func connect(_ url: String, subprotocols: [String] = [], _ configure: (inout ClientOptions) -> Void = { _ in }) {
        var options = ClientOptions()
        configure(&options)
        let (trace, label) = (server.trace, label)
        if options.reconnect != nil {
            options.onRetry = { error, _ in trace.add(.callback, label, "retrying \(error.map(\.traceText) ?? "after the end")") }
        }
        trace.add(.call, label, "connect to \(url)")
        connection = server.worker.connect(to: url, subprotocols: subprotocols, options: options) { [handler, weak self] head in
            trace.add(.callback, label, "makeHandler \(head.status)")
            if let refusal = self?.refusal { throw refusal }
            return handler
        } failed: { error in
            trace.add(.callback, label, "failed \(error.traceText)")
        }
        trace.add(.call, label, "  connect has returned")
    }
}
