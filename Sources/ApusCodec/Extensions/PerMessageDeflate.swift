/// permessage-deflate (RFC 7692): each message compressed by itself, or with what came before it.
///
/// Without context takeover, which is the default, nothing of a connection remains between its messages: all connections of a process
/// share a few compressors. With it, each connection that has sent a message holds one of its own.
public final class PerMessageDeflate: WebSocketExtension {
    /// What is agreed to, and how hard to compress.
    public struct Configuration: Hashable, Sendable {
        /// Whether a message may refer to those before it: smaller messages, a compressor and a window for each connection.
        public enum ContextTakeover: Hashable, Sendable {
            case never
            /// Unless the peer asks for none.
            case allowed
        }

        /// Of what the server compresses.
        public var serverContextTakeover = ContextTakeover.never
        /// Of what the client compresses.
        public var clientContextTakeover = ContextTakeover.never
        /// The window that the server compresses with is at most 2^this bytes: 9 to 15.
        public var serverMaxWindowBits = 15
        /// The window that the client compresses with is at most 2^this bytes, as far as the client can be told: 9 to 15.
        public var clientMaxWindowBits = 15
        /// 1 (fast) to 9 (small).
        public var level = 1
        /// 1 to 9: how much memory a compressor uses to find repetitions; 2^(this+9) bytes besides four times its window.
        public var memoryLevel = 8
        /// Messages of fewer bytes are sent as they are.
        public var threshold = 64

        public init() {}
    }

    public let name = "permessage-deflate"
    public let reservedBits = ReservedBits.rsv1
    private let configuration: Configuration
    private let pool: DeflatePool

    /// - Precondition: the numbers of the configuration are in their ranges.
    public init(_ configuration: Configuration = Configuration()) {
        precondition(
            (9...15).contains(configuration.serverMaxWindowBits) && (9...15).contains(configuration.clientMaxWindowBits)
                && (1...9).contains(configuration.level) && (1...9).contains(configuration.memoryLevel),
            "permessage-deflate: window bits are 9 to 15, level and memoryLevel 1 to 9")
        self.configuration = configuration
        pool = DeflatePool(level: configuration.level, memoryLevel: configuration.memoryLevel)
    }

    // MARK: Client

    public func offers() -> [ExtensionParameters] {
        var offer = ExtensionParameters(name)
        if configuration.serverContextTakeover == .never { offer.parameters.append(.init(Key.serverNoContextTakeover)) }
        if configuration.clientContextTakeover == .never { offer.parameters.append(.init(Key.clientNoContextTakeover)) }
        if configuration.serverMaxWindowBits < 15 {
            offer.parameters.append(.init(Key.serverMaxWindowBits, "\(configuration.serverMaxWindowBits)"))
        }
        let bits = configuration.clientMaxWindowBits
        offer.parameters.append(.init(Key.clientMaxWindowBits, bits < 15 ? "\(bits)" : nil))
        return [offer]
    }

    public func agree(to answer: ExtensionParameters) throws(ExtensionError) -> any ExtensionSession {
        guard let terms = Terms(answer, in: .answer) else {
            throw .negotiation("the server answers \"\(answer)\", which is no valid agreement")
        }
        if configuration.serverContextTakeover == .never, !terms.serverNoContextTakeover {
            throw .negotiation("the server does not agree to server_no_context_takeover")
        }
        let serverBits = terms.serverMaxWindowBits ?? 15
        guard serverBits <= configuration.serverMaxWindowBits else {
            throw .negotiation("the server answers server_max_window_bits=\(serverBits); \(configuration.serverMaxWindowBits) was offered")
        }
        let clientBits = terms.clientMaxWindowBits ?? 15
        return PerMessageDeflateSession(
            pool: pool, threshold: configuration.threshold,
            outgoing: .init(
                windowBits: min(clientBits, configuration.clientMaxWindowBits),
                takesOver: configuration.clientContextTakeover == .allowed && !terms.clientNoContextTakeover),
            incoming: .init(windowBits: serverBits, takesOver: !terms.serverNoContextTakeover))
    }

    // MARK: Server

    public func accept(_ offer: ExtensionParameters) -> ExtensionAgreement? {
        guard let terms = Terms(offer, in: .offer) else { return nil }
        let serverBits = min(terms.serverMaxWindowBits ?? 15, configuration.serverMaxWindowBits)
        var answer = ExtensionParameters(name)
        let serverTakesOver = configuration.serverContextTakeover == .allowed && !terms.serverNoContextTakeover
        if !serverTakesOver { answer.parameters.append(.init(Key.serverNoContextTakeover)) }
        let clientTakesOver = configuration.clientContextTakeover == .allowed && !terms.clientNoContextTakeover
        if !clientTakesOver { answer.parameters.append(.init(Key.clientNoContextTakeover)) }
        if serverBits < 15 || terms.serverMaxWindowBits != nil { answer.parameters.append(.init(Key.serverMaxWindowBits, "\(serverBits)")) }
        // May be answered only if the client says that it understands it (§7.1.2.2); 8 stays 8, inflating a smaller window is no matter.
        var clientBits = 15
        if terms.mentionsClientMaxWindowBits {
            clientBits = min(terms.clientMaxWindowBits ?? 15, configuration.clientMaxWindowBits)
            if clientBits < 15 { answer.parameters.append(.init(Key.clientMaxWindowBits, "\(clientBits)")) }
        }
        let session = PerMessageDeflateSession(
            pool: pool, threshold: configuration.threshold,
            outgoing: .init(windowBits: serverBits, takesOver: serverTakesOver),
            incoming: .init(windowBits: clientBits, takesOver: clientTakesOver))
        return ExtensionAgreement(answer: answer, session: session)
    }

    // MARK: Parameters

    private enum Key {
        static let serverNoContextTakeover = "server_no_context_takeover"
        static let clientNoContextTakeover = "client_no_context_takeover"
        static let serverMaxWindowBits = "server_max_window_bits"
        static let clientMaxWindowBits = "client_max_window_bits"
    }

    /// The parameters of one element (RFC 7692 §7.1); none are valid with an unknown, repeated or malformed one.
    private struct Terms {
        enum Place { case offer, answer }

        var serverNoContextTakeover = false
        var clientNoContextTakeover = false
        var serverMaxWindowBits: Int?
        var clientMaxWindowBits: Int?
        var mentionsClientMaxWindowBits = false

        init?(_ element: ExtensionParameters, in place: Place) {
            var seen: Set<String> = []
            for parameter in element.parameters {
                guard seen.insert(parameter.name).inserted else { return nil }
                switch parameter.name {
                case Key.serverNoContextTakeover where parameter.value == nil: serverNoContextTakeover = true
                case Key.clientNoContextTakeover where parameter.value == nil: clientNoContextTakeover = true
                case Key.serverMaxWindowBits:
                    guard let bits = Self.windowBits(parameter.value) else { return nil }
                    serverMaxWindowBits = bits
                case Key.clientMaxWindowBits:
                    mentionsClientMaxWindowBits = true
                    if parameter.value == nil, place == .offer { continue }
                    guard let bits = Self.windowBits(parameter.value) else { return nil }
                    clientMaxWindowBits = bits
                default: return nil
                }
            }
        }

        /// "a decimal integer value without leading zeroes between 8 to 15 inclusive".
        private static func windowBits(_ text: String?) -> Int? {
            guard let text, !text.hasPrefix("0"), !text.hasPrefix("+"), let bits = Int(text), (8...15).contains(bits) else { return nil }
            return bits
        }
    }
}
