import ApusCodec
import Testing

/// An extension that records its calls, prefixes sent payload with its name and removes the prefix
/// from received payload.
final class Labelling: WebSocketExtension {
    let name: String
    let reservedBits: ReservedBits
    let sharingKey: String?
    /// Offers that are declined.
    var declines: (ExtensionParameters) -> Bool = { _ in false }
    private(set) var asked: [String] = []

    init(_ name: String, _ reservedBits: ReservedBits = [], sharingKey: String? = nil) {
        self.name = name
        self.reservedBits = reservedBits
        self.sharingKey = sharingKey
    }

    func offers() -> [ExtensionParameters] { [ExtensionParameters(name, [.init("a")]), ExtensionParameters(name)] }

    func accept(_ offer: ExtensionParameters) -> ExtensionAgreement? {
        asked.append("\(offer)")
        return declines(offer) ? nil : ExtensionAgreement(answer: offer, session: Session(name, reservedBits, sharingKey))
    }

    func agree(to answer: ExtensionParameters) throws(ExtensionError) -> any ExtensionSession {
        if declines(answer) { throw .negotiation("not \(answer)") }
        return Session(name, reservedBits, sharingKey)
    }

    final class Session: ExtensionSession {
        let label: [UInt8]
        let bits: ReservedBits
        let sharingKey: String?

        init(_ name: String, _ bits: ReservedBits, _ sharingKey: String?) {
            label = Array("\(name)(".utf8)
            self.bits = bits
            self.sharingKey = sharingKey
        }

        func receive(
            _ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8], maxBytes: Int
        ) throws(ExtensionError) -> ExtensionOutcome {
            guard piece.reservedBits.isSuperset(of: bits) else { return .unchanged }
            let bytes = payload.copied
            guard bytes.starts(with: label) else { throw .invalidData("no \(String(decoding: label, as: UTF8.self))") }
            output += bytes.dropFirst(label.count)
            return .replaced()
        }

        func send(_ payload: RawSpan, _ piece: ExtensionPiece, into output: inout [UInt8]) -> ExtensionOutcome {
            output += label + payload.copied
            return .replaced(bits)
        }
    }
}

@Suite("Extension negotiation")
struct ExtensionNegotiationTests {
    // MARK: Configuration

    @Test("conflicting extensions are refused at configuration")
    func conflicts() {
        let none = ExtensionNegotiation.conflict(in: [
            Labelling("a", .rsv1), Labelling("b", [.rsv2, .rsv3]), Labelling("c"), Labelling("d"),
        ])
        #expect(none == nil)
        #expect(ExtensionNegotiation.conflict(in: []) == nil)
        #expect(
            ExtensionNegotiation.conflict(in: [Labelling("a", .rsv1), Labelling("b", [.rsv1, .rsv2])])?.contains("reserved bit") == true)
        #expect(ExtensionNegotiation.conflict(in: [Labelling("x", .rsv1), PerMessageDeflate()])?.contains("permessage-deflate") == true)
        #expect(ExtensionNegotiation.conflict(in: [Labelling("a"), Labelling("a")])?.contains("twice") == true)
        for name in ["", "a b", "a,b", "a;b", "ä"] {
            #expect(ExtensionNegotiation.conflict(in: [Labelling(name)])?.contains("token") == true, "\(name)")
        }
    }

    // MARK: Server

    struct Answer: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let offers: String
        /// Nil: no field in the response.
        let answer: String?

        init(_ name: String, _ offers: String, _ answer: String?) {
            testDescription = name
            self.offers = offers
            self.answer = answer
        }
    }

    /// A server with `one` (RSV1), `two` (RSV2) and `three` (none), which decline offers with a
    /// parameter `no`; `three` is vetoed.
    static let answers = [
        Answer("nothing", "", nil), Answer("empty elements", " , ,", nil), Answer("unknown", "x, y; a=1", nil), Answer("one", "one", "one"),
        Answer("in the client's order", "two, one", "two, one"), Answer("an unknown one is skipped", "x, two", "two"),
        Answer("the first of several offers", "one; a, one; b", "one; a"),
        Answer("the next when the first is declined", "one; no, one; b, one", "one; b"), Answer("all declined", "one; no, one; no=1", nil),
        Answer("one declined, the other not", "one; no, two", "two"),
        Answer("in the position of the accepted offer", "one; no, two, one", "two, one"),
        Answer("vetoed", "three", nil), Answer("vetoed among others", "one, three, two", "one, two"),
        Answer("names are compared octet by octet", "ONE", nil),
    ]

    @Test("responses of a server", arguments: answers)
    func answer(_ row: Answer) throws {
        let extensions = [Labelling("one", .rsv1), Labelling("two", .rsv2), Labelling("three")]
        for one in extensions { one.declines = { $0.parameters.contains { $0.name == "no" } } }
        let agreement = try ExtensionNegotiation.answer(row.offers, with: extensions) { $0.name != "three" }
        #expect(agreement?.answer == row.answer)
        var bits = ReservedBits()
        for one in extensions where row.answer?.contains(one.name) == true { bits.formUnion(one.reservedBits) }
        #expect((agreement?.chain.reservedBits ?? []) == bits, "only bits of agreed extensions are owned")
        #expect(extensions[2].asked.isEmpty, "what is vetoed never sees an offer")
    }

    @Test(
        "a malformed field is a handshake violation",
        arguments: ["one;", "one two", "one; a=\"", Array(repeating: "one", count: 33).joined(separator: ",")])
    func malformed(offers: String) {
        #expect(throws: HandshakeViolation.extensionsMalformed) {
            _ = try ExtensionNegotiation.answer(offers, with: [Labelling("one")]) { _ in true }
        }
    }

    @Test("an accepted extension gets no further offers")
    func asked() throws {
        let one = Labelling("one")
        one.declines = { $0.parameters.first?.name == "a" }
        _ = try ExtensionNegotiation.answer("one; a, one; b, one; c", with: [one]) { _ in true }
        #expect(one.asked == ["one; a", "one; b"])
    }

    // MARK: Client

    @Test("a client sends all offers in order of preference")
    func offers() {
        #expect(ExtensionNegotiation.offers(of: []) == nil)
        #expect(ExtensionNegotiation.offers(of: [Labelling("one"), Labelling("two")]) == "one; a, one, two; a, two")
    }

    static let refused: [(answer: String, reason: String)] = [
        ("three", "\"three\", which was not offered"), ("one, three", "\"three\", which was not offered"), ("ONE", "not offered"),
        ("one, one", "one twice"), ("one; a, two, one; b", "one twice"), ("one;", "malformed"), ("one two", "malformed"),
        ("one; no", "not one; no"), ("two, one; no", "not one; no"),
    ]

    @Test("responses that fail a client's connection", arguments: refused)
    func fails(answer: String, reason: String) {
        let one = Labelling("one")
        one.declines = { $0.parameters.first?.name == "no" }
        do throws(ExtensionError) {
            _ = try ExtensionNegotiation.agree(to: answer, with: [one, Labelling("two")])
            Issue.record("agreed to \(answer)")
        } catch {
            guard case .negotiation(let text) = error else {
                Issue.record("\(error)")
                return
            }
            #expect(text.contains(reason))
        }
    }

    @Test("responses that a client accepts")
    func agreed() throws {
        let extensions = [Labelling("one", .rsv1), Labelling("two", .rsv2)]
        for empty in ["", ",", " "] { #expect(try ExtensionNegotiation.agree(to: empty, with: extensions) == nil) }
        #expect(try ExtensionNegotiation.agree(to: "two", with: extensions)?.reservedBits == .rsv2)
        #expect(try ExtensionNegotiation.agree(to: "one; a, two", with: extensions)?.reservedBits == [.rsv1, .rsv2])
    }

    // MARK: The chain

    static let whole = ExtensionPiece(kind: .text, reservedBits: [], startsMessage: true, endsMessage: true)

    @Test("\"foo, bar\" in the response means bar(foo(data))")
    func order() throws {
        let extensions = [Labelling("bar", .rsv2), Labelling("foo", .rsv1)]
        let server = try #require(try ExtensionNegotiation.answer("foo, bar", with: extensions) { _ in true })
        var sent: [UInt8] = []
        let outcome = server.chain.send(Array("data".utf8).rawSpan, Self.whole, into: &sent)
        #expect(outcome == .replaced([.rsv1, .rsv2]))
        #expect(String(decoding: sent, as: UTF8.self) == "bar(foo(data")

        let client = try #require(try ExtensionNegotiation.agree(to: server.answer, with: extensions))
        let piece = ExtensionPiece(kind: .text, reservedBits: [.rsv1, .rsv2], startsMessage: true, endsMessage: true)
        var received = Array("kept ".utf8)
        #expect(try client.receive(sent.rawSpan, piece, into: &received, maxBytes: 100) == .replaced())
        #expect(String(decoding: received, as: UTF8.self) == "kept data")
    }

    @Test("only extensions whose bits are set change received payload")
    func partly() throws {
        let extensions = [Labelling("foo", .rsv1), Labelling("bar", .rsv2)]
        let chain = try #require(try ExtensionNegotiation.agree(to: "foo, bar", with: extensions))
        func receive(_ text: String, _ bits: ReservedBits) throws -> (ExtensionOutcome, String) {
            var output: [UInt8] = []
            let piece = ExtensionPiece(kind: .text, reservedBits: bits, startsMessage: true, endsMessage: true)
            let outcome = try chain.receive(Array(text.utf8).rawSpan, piece, into: &output, maxBytes: 100)
            return (outcome, String(decoding: output, as: UTF8.self))
        }
        #expect(try receive("data", []) == (.unchanged, ""))
        #expect(try receive("foo(data", .rsv1) == (.replaced(), "data"))
        #expect(try receive("bar(data", .rsv2) == (.replaced(), "data"))
        #expect(throws: FrameViolation.extensionFailed(.invalidData("no foo("))) { _ = try receive("bar(data", [.rsv1, .rsv2]) }
    }

    @Test("the limit applies to the output of the whole chain, including earlier contents")
    func limit() throws {
        let chain = try #require(try ExtensionNegotiation.agree(to: "foo, bar", with: [Labelling("foo", .rsv1), Labelling("bar", .rsv2)]))
        let piece = ExtensionPiece(kind: .text, reservedBits: [.rsv1, .rsv2], startsMessage: true, endsMessage: true)
        let sent = Array("bar(foo(data".utf8)
        var output = Array("123".utf8)
        #expect(try chain.receive(sent.rawSpan, piece, into: &output, maxBytes: 7) == .replaced())
        output = Array("123".utf8)
        #expect(throws: FrameViolation.extensionFailed(.messageTooBig(limit: 6))) {
            _ = try chain.receive(sent.rawSpan, piece, into: &output, maxBytes: 6)
        }
    }

    @Test("a message is shared only between connections with equal extensions")
    func sharing() throws {
        func key(_ answer: String, _ extensions: [any WebSocketExtension]) throws -> String? {
            try #require(try ExtensionNegotiation.agree(to: answer, with: extensions)).sharingKey
        }
        let extensions: [any WebSocketExtension] = [
            Labelling("a", sharingKey: "1"), Labelling("b", sharingKey: "1"), Labelling("c"), Labelling("d", sharingKey: "1,1"),
        ]
        #expect(try key("a", extensions) != nil)
        #expect(try key("a", extensions) == key("a", extensions))
        #expect(try key("a, c", extensions) == nil, "one session with a context prevents sharing for the whole chain")
        var keys: Set<String?> = []
        let chains = ["a", "b", "d", "a, b", "b, a"]
        for chain in chains { keys.insert(try key(chain, extensions)) }
        #expect(keys.count == chains.count, "the same key of different extensions, or of the same in another order, is not the same")
    }

    @Test("a response is written in the form that is parsed")
    func written() throws {
        let agreement = try #require(
            try ExtensionNegotiation.answer("one; a=\"1\"; b, two", with: [Labelling("one"), Labelling("two")]) { _ in true })
        #expect(agreement.answer == "one; a=1; b, two")
    }
}
