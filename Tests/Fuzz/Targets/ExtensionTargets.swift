import ApusCodec

/// One input at a time: `FuzzTarget.run` sees to it.
nonisolated(unsafe) private let configurations = DeflateConfigurations()

enum PerMessageDeflateTarget {
    private enum Outcome: Equatable {
        case message([UInt8])
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
        _ = sameForAllCuts(seed: option) { cut -> Outcome in
            let chains = configurations.agree(client: choice, server: choice, threshold: 0)
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
        let chains = configurations.agree(client: client, server: server, threshold: threshold)
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
        let deflate = configurations.extensionObject(input.byte(), threshold: 64)
        let extensions: [any WebSocketExtension] = option & 1 == 0 ? [deflate] : [Idle(), deflate]
        require(ExtensionNegotiation.conflict(in: extensions) == nil && ExtensionNegotiation.conflict(in: extensions + [deflate]) != nil)
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
            if let client = try? ExtensionNegotiation.agree(to: agreed.answer, with: extensions) { talk(agreed.chain, client) }
            var handshake = HTTPFields()
            handshake.appendChecked("A", agreed.answer)
            require((try? HTTPFields(["A": agreed.answer])) == handshake, "the answer may stand in a field")
        } catch {
            require(elements == nil && error.status == .badRequest, "only what is malformed is refused")
        }
    }

    /// A message passes both chains, whatever was agreed on.
    private static func talk(_ server: ExtensionChain, _ client: ExtensionChain) {
        let message = [UInt8](repeating: 0x61, count: 100)
        var (sent, received): ([UInt8], [UInt8]) = ([], [])
        var bits = ReservedBits()
        if case .replaced(let set) = server.send(message.rawSpan, piece([]), into: &sent) { bits = set } else { sent = message }
        do throws(FrameViolation) {
            if try client.receive(sent.rawSpan, piece(bits), into: &received, maxBytes: 100) == .unchanged { received = sent }
        } catch {
            fatalError("a message of our own is refused: \(error)")
        }
        require(received == message && client.reservedBits == server.reservedBits && bits.isSubset(of: client.reservedBits))
    }

    private static func piece(_ bits: ReservedBits) -> ExtensionPiece {
        ExtensionPiece(kind: .binary, reservedBits: bits, startsMessage: true, endsMessage: true)
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
