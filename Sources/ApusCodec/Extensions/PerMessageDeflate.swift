/// permessage-deflate (RFC 7692): compresses each message alone, or with the context of those
/// before it.
///
/// Without context takeover, the default, a connection keeps no state between messages: all
/// connections of a process share a few compressors. With it, each connection that has sent a
/// message owns a compressor.
public final class PerMessageDeflate: WebSocketExtension {
    /// Which parameters are accepted, and how to compress.
    public struct Configuration: Hashable, Sendable {
        /// Whether a message may refer to those before it. Messages become smaller; each connection
        /// needs a compressor and a window.
        public enum ContextTakeover: Hashable, Sendable {
            case never
            /// Used unless the peer refuses it with `…_no_context_takeover`.
            case allowed
        }

        /// Context takeover of messages from the server.
        public var serverContextTakeover = ContextTakeover.never
        /// Context takeover of messages from the client.
        public var clientContextTakeover = ContextTakeover.never
        /// The LZ77 window of messages from the server is at most 2^this bytes: 9 to 15.
        public var serverMaxWindowBits = 15
        /// The LZ77 window of messages from the client is at most 2^this bytes, 9 to 15, if the
        /// client supports the parameter.
        public var clientMaxWindowBits = 15
        /// 1 (fast) to 9 (small).
        public var level = 1
        /// 1 to 9: memory for finding repetitions, 2^(this+9) bytes. The window takes four times
        /// its size besides.
        public var memoryLevel = 8
        /// Messages of fewer bytes are sent uncompressed.
        public var threshold = 64

        public init() {}
    }

    public let name = "permessage-deflate"
    public let reservedBits = ReservedBits.rsv1
    private let configuration: Configuration
    private let pool: DeflatePool

    /// - Precondition: the numbers of the configuration are in their ranges.
    public init(_ configuration: Configuration = Configuration()) {
        guard (9...15).contains(configuration.serverMaxWindowBits), (9...15).contains(configuration.clientMaxWindowBits),
            (1...9).contains(configuration.level), (1...9).contains(configuration.memoryLevel)
        else {
            fatalError("permessage-deflate: expected window bits from 9 to 15, level and memoryLevel from 1 to 9, got \(configuration)")
        }
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
                hasContextTakeover: configuration.clientContextTakeover == .allowed && !terms.clientNoContextTakeover),
            incoming: .init(windowBits: serverBits, hasContextTakeover: !terms.serverNoContextTakeover))
    }

    // MARK: Server

    public func accept(_ offer: ExtensionParameters) -> ExtensionAgreement? {
        guard let terms = Terms(offer, in: .offer) else { return nil }
        let serverBits = min(terms.serverMaxWindowBits ?? 15, configuration.serverMaxWindowBits)
        var answer = ExtensionParameters(name)
        let serverHasContextTakeover = configuration.serverContextTakeover == .allowed && !terms.serverNoContextTakeover
        if !serverHasContextTakeover { answer.parameters.append(.init(Key.serverNoContextTakeover)) }
        let clientHasContextTakeover = configuration.clientContextTakeover == .allowed && !terms.clientNoContextTakeover
        if !clientHasContextTakeover { answer.parameters.append(.init(Key.clientNoContextTakeover)) }
        if serverBits < 15 || terms.serverMaxWindowBits != nil { answer.parameters.append(.init(Key.serverMaxWindowBits, "\(serverBits)")) }
        // Allowed only if the client offered the parameter (§7.1.2.2). A value of 8 stays: the
        // decompressor may have a larger window.
        var clientBits = 15
        if terms.hasClientMaxWindowBits {
            clientBits = min(terms.clientMaxWindowBits ?? 15, configuration.clientMaxWindowBits)
            if clientBits < 15 { answer.parameters.append(.init(Key.clientMaxWindowBits, "\(clientBits)")) }
        }
        let session = PerMessageDeflateSession(
            pool: pool, threshold: configuration.threshold,
            outgoing: .init(windowBits: serverBits, hasContextTakeover: serverHasContextTakeover),
            incoming: .init(windowBits: clientBits, hasContextTakeover: clientHasContextTakeover))
        return ExtensionAgreement(answer: answer, session: session)
    }

    // MARK: Parameters

    private enum Key {
        static let serverNoContextTakeover = "server_no_context_takeover"
        static let clientNoContextTakeover = "client_no_context_takeover"
        static let serverMaxWindowBits = "server_max_window_bits"
        static let clientMaxWindowBits = "client_max_window_bits"
    }

    /// The parameters of one element (RFC 7692 §7.1). An unknown, repeated or malformed parameter
    /// makes all of them invalid.
    private struct Terms {
        enum Place { case offer, answer }

        var serverNoContextTakeover = false
        var clientNoContextTakeover = false
        var serverMaxWindowBits: Int?
        var clientMaxWindowBits: Int?
        var hasClientMaxWindowBits = false

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
                    hasClientMaxWindowBits = true
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
