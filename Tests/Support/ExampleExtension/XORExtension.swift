import Apus

/// An extension as a user would write one: it sees the library's public interface only (this target has no access to what is `package`).
///
/// Every octet of a message is XORed with a key that both sides know from the handshake: `x-xor; key=42`. RSV2 marks such messages.
public final class XORExtension: WebSocketExtension {
    public let name: String
    public let reservedBits = ReservedBits.rsv2
    private let key: UInt8
    private let counter = Counter()

    /// Messages and parts of messages that `send` was called for.
    public var sends: Int { counter.sends }

    /// Sessions count together.
    fileprivate final class Counter {
        var sends = 0
    }

    /// - Parameter key: what a client offers; a server takes the client's.
    public init(key: UInt8 = 42, name: String = "x-xor") {
        self.key = key
        self.name = name
    }

    public func offers() -> [ExtensionParameters] { [ExtensionParameters(name, [.init("key", "\(key)")])] }

    public func accept(_ offer: ExtensionParameters) -> ExtensionAgreement? {
        guard let key = Self.key(of: offer) else { return nil }
        return ExtensionAgreement(answer: offer, session: Session(key: key, counter: counter))
    }

    public func agree(to answer: ExtensionParameters) throws(ExtensionError) -> any ExtensionSession {
        guard Self.key(of: answer) == key else { throw .negotiation("\(answer) is not the key that was offered, \(key)") }
        return Session(key: key, counter: counter)
    }

    private static func key(of element: ExtensionParameters) -> UInt8? {
        guard element.parameters.count == 1, element.parameters[0].name == "key" else { return nil }
        return element.parameters[0].value.flatMap { UInt8($0) }
    }

    private final class Session: ExtensionSession {
        private let key: UInt8
        private let counter: Counter

        init(key: UInt8, counter: Counter) {
            self.key = key
            self.counter = counter
        }

        var sharingKey: String? { "\(key)" }

        func receive(
            _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
        ) throws(ExtensionError) -> ExtensionOutcome {
            guard piece.reservedBits.contains(.rsv2) else { return .unchanged }
            guard output.count + payload.byteCount <= maxBytes else { throw .messageTooBig(limit: maxBytes) }
            append(payload, to: &output)
            return .replaced()
        }

        func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome {
            counter.sends += 1
            append(payload, to: &output)
            return .replaced(.rsv2)
        }

        private func append(_ payload: RawSpan, to output: inout [UInt8]) {
            payload.withUnsafeBytes { output += $0.lazy.map { $0 ^ self.key } }
        }
    }
}
