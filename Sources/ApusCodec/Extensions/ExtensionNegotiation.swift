/// The agreed extensions of one connection, in the order they were agreed on: what is sent passes the first one first, what is received the
/// last one first (RFC 6455 §9.1).
package final class ExtensionChain {
    private let sessions: [any ExtensionSession]
    /// The reserved bits that the extensions own together.
    package let reservedBits: ReservedBits

    /// Bytes of the current message that have been handed on as they came, which is how a message that is never assembled is limited.
    package var bytesHandedOn = 0

    /// What the current message has become so far, where it is assembled.
    package var assembler = MessageAssembler(maxBytes: 0)

    /// What `send` of the whole chain depends on besides the message; nil if a session keeps a context.
    package let sharingKey: String?

    init(_ agreed: [(name: String, session: any ExtensionSession)], reservedBits: ReservedBits) {
        sessions = agreed.map(\.session)
        self.reservedBits = reservedBits
        // A key means something to its own extension only. Names are tokens, so that no key can pass for another's beginning.
        let keys = agreed.compactMap { agreed in agreed.session.sharingKey.map { "\(agreed.name) \($0.utf8.count) \($0)" } }
        sharingKey = keys.count == agreed.count ? keys.joined(separator: ",") : nil
    }

    /// Passes received payload through, appending the result to `output`.
    ///
    /// - Throws: `FrameViolation.extensionFailed`.
    package func receive(
        _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
    ) throws(FrameViolation) -> ExtensionOutcome {
        do throws(ExtensionError) {
            return try pass(payload, piece, into: &output, maxBytes: maxBytes)
        } catch {
            throw .extensionFailed(error)
        }
    }

    private func pass(
        _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
    ) throws(ExtensionError) -> ExtensionOutcome {
        if sessions.count == 1 { return try sessions[0].receive(payload, piece, into: &output, maxBytes: maxBytes) }
        var current: [UInt8]?
        for session in sessions.reversed() {
            var result: [UInt8] = []
            let outcome =
                if let current {
                    try session.receive(current.rawSpan, piece, into: &result, maxBytes: maxBytes)
                } else {
                    try session.receive(payload, piece, into: &result, maxBytes: maxBytes)
                }
            if outcome != .unchanged { current = result }
        }
        guard let current else { return .unchanged }
        guard output.count + current.count <= maxBytes else { throw .messageTooBig(limit: maxBytes) }
        output.append(contentsOf: current)
        return .replaced()
    }

    /// Passes payload to send through, appending the result to `output`.
    package func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome {
        if sessions.count == 1 { return sessions[0].send(payload, piece, into: &output) }
        var current: [UInt8]?
        var bits = ReservedBits()
        for session in sessions {
            var result: [UInt8] = []
            let outcome =
                if let current { session.send(current.rawSpan, piece, into: &result) } else { session.send(payload, piece, into: &result) }
            if case .replaced(let set) = outcome {
                bits.formUnion(set)
                current = result
            }
        }
        guard let current else { return .unchanged }
        output.append(contentsOf: current)
        return .replaced(bits)
    }
}

/// Agreement on extensions in the opening handshake (RFC 6455 §9.1).
package enum ExtensionNegotiation {
    /// What a server agrees to.
    package struct Agreement {
        /// The value of `Sec-WebSocket-Extensions`.
        package let answer: String
        package let chain: ExtensionChain
    }

    /// Why a set of extensions cannot be configured together; nil if it can.
    package static func conflict(in extensions: [any WebSocketExtension]) -> String? {
        for (index, one) in extensions.enumerated() {
            guard HTTPMethod(rawValue: one.name).isToken else { return "the extension name \"\(one.name)\" is not a token (RFC 6455 §9.1)" }
            for other in extensions[..<index] {
                if other.name == one.name { return "the extension \"\(one.name)\" is given twice" }
                if !other.reservedBits.isDisjoint(with: one.reservedBits) {
                    return "the extensions \"\(other.name)\" and \"\(one.name)\" both own a reserved bit"
                }
            }
        }
        return nil
    }

    /// A server's answer to a client's offers: each extension is agreed on at most once, with the first of its offers that it accepts, in
    /// the client's order.
    ///
    /// - Parameters:
    ///   - offers: the value of `Sec-WebSocket-Extensions`.
    ///   - allows: the application's veto, asked before an extension sees an offer.
    /// - Returns: nil when nothing is agreed on.
    /// - Throws: `HandshakeViolation.extensionsMalformed`.
    package static func answer(
        _ offers: String, with extensions: [any WebSocketExtension], allows: (any WebSocketExtension) -> Bool
    ) throws(HandshakeViolation) -> Agreement? {
        guard let offered = ExtensionParameters.parse(offers) else { throw .extensionsMalformed }
        var answers: [ExtensionParameters] = []
        var agreed: [(name: String, session: any ExtensionSession)] = []
        var bits = ReservedBits()
        for offer in offered where !answers.contains(where: { $0.name == offer.name }) {
            guard let known = extensions.first(where: { $0.name == offer.name }), allows(known), let agreement = known.accept(offer) else {
                continue
            }
            answers.append(agreement.answer)
            agreed.append((known.name, agreement.session))
            bits.formUnion(known.reservedBits)
        }
        guard !answers.isEmpty else { return nil }
        return Agreement(
            answer: answers.map(\.description).joined(separator: ", "), chain: ExtensionChain(agreed, reservedBits: bits))
    }

    /// A client's offers; nil without any.
    package static func offers(of extensions: [any WebSocketExtension]) -> String? {
        let offers = extensions.flatMap { $0.offers() }
        return offers.isEmpty ? nil : offers.map(\.description).joined(separator: ", ")
    }

    /// A client's check of the server's answer: every element must be an extension that was offered, once.
    ///
    /// - Throws: `ExtensionError.negotiation`: "the client MUST _Fail the WebSocket Connection_" (RFC 6455 §4.1).
    package static func agree(
        to answer: String, with extensions: [any WebSocketExtension]
    ) throws(ExtensionError) -> ExtensionChain? {
        guard let elements = ExtensionParameters.parse(answer) else {
            throw .negotiation("Sec-WebSocket-Extensions in the answer is malformed")
        }
        var agreed: [(name: String, session: any ExtensionSession)] = []
        var bits = ReservedBits()
        var names: Set<String> = []
        for element in elements {
            guard let known = extensions.first(where: { $0.name == element.name }) else {
                throw .negotiation("the server answers with the extension \(element.name.debugDescription), which was not offered")
            }
            guard names.insert(element.name).inserted else { throw .negotiation("the server answers \(element.name) twice") }
            agreed.append((known.name, try known.agree(to: element)))
            bits.formUnion(known.reservedBits)
        }
        return agreed.isEmpty ? nil : ExtensionChain(agreed, reservedBits: bits)
    }
}
