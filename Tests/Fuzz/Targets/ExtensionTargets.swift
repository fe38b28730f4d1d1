import ApusCodec

/// permessage-deflate as some bytes configure it. The objects live on between inputs, as they do between the connections of a worker:
/// what one input leaves in the shared compressors must not show in the next.
enum DeflateConfigurations {
    nonisolated(unsafe) private static var known: [UInt16: PerMessageDeflate] = [:]

    /// One of 72 configurations, by the bits of `choice`.
    static func extensionObject(_ choice: UInt8, threshold: Int) -> PerMessageDeflate {
        let key = UInt16(choice) << 1 | (threshold > 0 ? 1 : 0)
        if let made = known[key] { return made }
        var configuration = PerMessageDeflate.Configuration()
        configuration.serverContextTakeover = choice & 1 == 0 ? .never : .allowed
        configuration.clientContextTakeover = choice & 2 == 0 ? .never : .allowed
        configuration.serverMaxWindowBits = [15, 9, 12, 15][Int(choice >> 2 & 3)]
        configuration.clientMaxWindowBits = [15, 9, 12, 15][Int(choice >> 4 & 3)]
        configuration.level = choice & 0x40 == 0 ? 1 : 9
        configuration.memoryLevel = choice & 0x80 == 0 ? 8 : 1
        configuration.threshold = threshold
        let made = PerMessageDeflate(configuration)
        known[key] = made
        return made
    }
}

/// The agreement of two configurations; nil if the client refuses the server's answer.
func agree(client: PerMessageDeflate, server: PerMessageDeflate) -> (client: ExtensionChain, server: ExtensionChain)? {
    guard let offers = ExtensionNegotiation.offers(of: [client]) else { fatalError("permessage-deflate is offered") }
    do {
        guard let agreed = try ExtensionNegotiation.answer(offers, with: [server], allows: { _ in true }) else {
            fatalError("our server accepts our client's offer: \(offers)")
        }
        guard let chain = try ExtensionNegotiation.agree(to: agreed.answer, with: [client]) else {
            fatalError("our client agrees to our server's answer: \(agreed.answer)")
        }
        require(chain.reservedBits == .rsv1 && agreed.chain.reservedBits == .rsv1)
        return (chain, agreed.chain)
    } catch {
        fatalError("our client and our server agree on \(offers): \(error)")
    }
}

enum PerMessageDeflateTarget {
    private enum Outcome: Equatable {
        case message([UInt8])
        case unfinished
        case violation(CloseCode)
    }

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        let (server, client) = (input.byte(), input.byte())
        switch option & 3 {
        case 0, 1: inflate(input.remaining(), option, server)
        default: talk(&input, option, client: client, server: server)
        }
    }

    // MARK: Bytes of the peer's

    private static func inflate(_ payload: [UInt8], _ option: UInt8, _ choice: UInt8) {
        let maxBytes = option & 4 == 0 ? 1 << 20 : 1000
        let configuration = DeflateConfigurations.extensionObject(choice, threshold: 0)
        _ = sameForAllCuts(seed: option) { cut -> Outcome in
            guard let chains = agree(client: configuration, server: configuration) else { return .unfinished }
            let pieces = payload.isEmpty ? [[]] : cut.pieces(of: payload)
            var output: [UInt8] = []
            do throws(FrameViolation) {
                for (index, bytes) in pieces.enumerated() {
                    let piece = ExtensionPiece(
                        kind: .binary, reservedBits: .rsv1, startsMessage: index == 0, endsMessage: index == pieces.count - 1)
                    let outcome = try chains.server.receive(bytes.rawSpan, piece, into: &output, maxBytes: maxBytes)
                    require(outcome == .replaced(), "a compressed message is replaced")
                    require(output.count <= maxBytes, "\(output.count) bytes were inflated, \(maxBytes) is the limit")
                }
                return .message(output)
            } catch {
                // One octet more tells "too big" from "exactly the limit".
                require(output.count <= maxBytes + 1, "\(output.count) bytes were inflated, \(maxBytes) is the limit")
                require([.invalidPayload, .messageTooBig].contains(error.closeCode), "\(error)")
                return .violation(error.closeCode)
            }
        }
        // Whatever that was, the next message of another connection is read rightly.
        var next = FuzzInput(Array("next".utf8))
        talk(&next, option, client: choice, server: choice)
    }

    // MARK: Messages of our own

    /// Messages both ways, in fragments, through frames: each arrives as it was sent.
    private static func talk(_ input: inout FuzzInput, _ option: UInt8, client: UInt8, server: UInt8) {
        let threshold = option & 8 == 0 ? 0 : 64
        guard
            let chains = agree(
                client: DeflateConfigurations.extensionObject(client, threshold: threshold),
                server: DeflateConfigurations.extensionObject(server, threshold: threshold))
        else { return }
        var toServer = FrameDecoder(role: .server, ownedReservedBits: 0x40, maxMessageBytes: 1 << 24)
        var toClient = FrameDecoder(role: .client, ownedReservedBits: 0x40, maxMessageBytes: 1 << 24)
        repeat {
            let choice = input.byte()
            var message = input.bytes(upTo: 0xFF)
            // Something to find repetitions in, and to pass windows with.
            if choice & 2 != 0 { message = Array(repeatElement(message, count: Int(choice >> 2)).joined()) }
            let fragments = choice & 0x40 == 0 ? [message] : Cut.random(seed: UInt64(choice)).pieces(of: message)
            if choice & 1 == 0 {
                pass(fragments, from: chains.client, to: chains.server, &toServer, key: 0x0102_0304, seed: choice)
            } else {
                pass(fragments, from: chains.server, to: chains.client, &toClient, key: nil, seed: choice)
            }
        } while !input.isEmpty
    }

    private static func pass(
        _ fragments: [[UInt8]], from sender: ExtensionChain, to receiver: ExtensionChain, _ decoder: inout FrameDecoder, key: UInt32?,
        seed: UInt8
    ) {
        let fragments = fragments.isEmpty ? [[]] : fragments
        var wire: [UInt8] = []
        for (index, fragment) in fragments.enumerated() {
            let (starts, ends) = (index == 0, index == fragments.count - 1)
            let piece = ExtensionPiece(kind: .binary, reservedBits: [], startsMessage: starts, endsMessage: ends)
            var output: [UInt8] = []
            switch sender.send(fragment.rawSpan, piece, into: &output) {
            case .unchanged: frame(fragment, [])
            case .replaced(let bits): frame(output, bits)
            }
            func frame(_ payload: [UInt8], _ bits: ReservedBits) {
                FrameEncoder.append(
                    starts ? .binary : .continuation, payload.rawSpan, isFinal: ends, reservedBits: starts ? bits.rawValue : 0,
                    maskingKey: key,
                    to: &wire)
            }
        }
        let message = fragments.flatMap { $0 }
        var received: [UInt8] = []
        do throws(FrameViolation) {
            for bytes in Cut.random(seed: UInt64(seed)).pieces(of: wire) {
                try receive(bytes, &decoder, receiver, maxBytes: message.count, into: &received)
            }
        } catch {
            fatalError("a message of our own is refused: \(error)")
        }
        require(received == message, "\(received.count) bytes arrive of \(message.count)")
        require(!decoder.isInsideMessage, "the message is complete")
    }

    private static func receive(
        _ bytes: [UInt8], _ decoder: inout FrameDecoder, _ chain: ExtensionChain, maxBytes: Int, into output: inout [UInt8]
    ) throws(FrameViolation) {
        carry += bytes
        var position = 0
        while let event = try next(&decoder, &carry, &position) {
            guard case .data(let data) = event else { fatalError("only data was sent") }
            let payload = Array(carry[data.range])
            let piece = ExtensionPiece(
                kind: data.kind, reservedBits: ReservedBits(rawValue: data.reservedBits), startsMessage: data.startsMessage,
                endsMessage: data.endsMessage)
            if try chain.receive(payload.rawSpan, piece, into: &output, maxBytes: maxBytes) == .unchanged { output += payload }
        }
        carry.removeFirst(position)
    }

    nonisolated(unsafe) private static var carry: [UInt8] = []
}

enum ExtensionOffersTarget {
    /// An extension that takes anything and does nothing, to have a second name in the list.
    private final class Idle: WebSocketExtension, ExtensionSession {
        let name = "x-idle"
        let reservedBits = ReservedBits.rsv2
        func offers() -> [ExtensionParameters] { [ExtensionParameters(name), ExtensionParameters(name, [.init("a", "b")])] }
        func accept(_ offer: ExtensionParameters) -> ExtensionAgreement? {
            offer.parameters.count > 3 ? nil : ExtensionAgreement(answer: offer, session: self)
        }
        func agree(to answer: ExtensionParameters) throws(ExtensionError) -> any ExtensionSession { self }
        func receive(
            _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
        ) throws(ExtensionError) -> ExtensionOutcome { .unchanged }
        func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome { .unchanged }
    }

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        let deflate = DeflateConfigurations.extensionObject(input.byte(), threshold: 64)
        let extensions: [any WebSocketExtension] = option & 1 == 0 ? [deflate] : [Idle(), deflate]
        let text = String(decoding: input.remaining(), as: UTF8.self)
        let elements = ExtensionParameters.parse(text)
        if let elements { parseAgain(elements) }
        if option & 2 == 0 { offer(text, elements, extensions, allows: option & 4 == 0) } else { answer(text, elements, extensions) }
    }

    private static func parseAgain(_ elements: [ExtensionParameters]) {
        let again = ExtensionParameters.parse(elements.map(\.description).joined(separator: " , ,\t"))
        require(again == elements, "what was parsed can be written and parsed: \(elements)")
        for element in elements {
            require(
                ([element.name] + element.parameters.flatMap { [$0.name, $0.value ?? "x"] }).allSatisfy { HTTPMethod(rawValue: $0).isToken }
            )
        }
    }

    private static func offer(
        _ text: String, _ elements: [ExtensionParameters]?, _ extensions: [any WebSocketExtension], allows: Bool
    ) {
        do throws(HandshakeViolation) {
            guard let agreed = try ExtensionNegotiation.answer(text, with: extensions, allows: { allows || $0.name == "x-idle" }) else {
                return
            }
            guard let answers = ExtensionParameters.parse(agreed.answer), let elements else { fatalError("the answer is well-formed") }
            require(Set(answers.map(\.name)).count == answers.count, "each extension once")
            for answer in answers {
                require(elements.contains { $0.name == answer.name }, "only what was offered")
                if answer.name == "permessage-deflate" {
                    require(allows, "the application's veto counts")
                    require(elements.contains { fits(answer, $0) }, "\(answer) answers one of \(elements)")
                }
            }
            var handshake = HTTPFields()
            handshake.appendChecked("A", agreed.answer)
            require((try? HTTPFields(["A": agreed.answer])) == handshake, "the answer may stand in a field")
        } catch {
            require(elements == nil && error.status == .badRequest, "only what is malformed is refused")
        }
    }

    /// RFC 7692 §7.1: what an answer may say to an offer.
    private static func fits(_ answer: ExtensionParameters, _ offer: ExtensionParameters) -> Bool {
        func value(_ name: String, _ element: ExtensionParameters) -> String?? { element.parameters.first { $0.name == name }.map(\.value) }
        guard offer.name == answer.name, Set(answer.parameters.map(\.name)).count == answer.parameters.count else { return false }
        if value("server_no_context_takeover", offer) != nil, value("server_no_context_takeover", answer) == nil { return false }
        if let asked = value("server_max_window_bits", offer) {
            guard let bits = Int(asked ?? ""), let given = value("server_max_window_bits", answer), let size = Int(given ?? ""),
                size <= bits
            else { return false }
        }
        if let given = value("client_max_window_bits", answer) {
            guard let asked = value("client_max_window_bits", offer), let size = Int(given ?? "") else { return false }
            if let asked { guard let bits = Int(asked), size <= bits else { return false } }
        }
        return true
    }

    private static func answer(_ text: String, _ elements: [ExtensionParameters]?, _ extensions: [any WebSocketExtension]) {
        do throws(ExtensionError) {
            guard let chain = try ExtensionNegotiation.agree(to: text, with: extensions) else {
                require(elements?.isEmpty == true, "nothing agreed on, nothing answered")
                return
            }
            require(elements?.isEmpty == false && !chain.reservedBits.isEmpty)
        } catch {
            guard case .negotiation(let reason) = error else { fatalError("\(error)") }
            require(!reason.isEmpty)
        }
    }
}
