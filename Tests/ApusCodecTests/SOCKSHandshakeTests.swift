import ApusCodec
import Testing

@Suite("RFC 1928, RFC 1929: SOCKS 5 client")
struct SOCKSHandshakeTests {
    static let credentials = BasicCredentials(user: "me", password: "pw")

    struct Case: CustomTestStringConvertible, Sendable {
        let testDescription: String
        var destination = SOCKSHandshake.Destination.name("host.test")
        var credentials: BasicCredentials?
        /// Replies of the proxy, and the bytes to send after each.
        let dialogue: [(answer: [UInt8], step: SOCKSHandshake.Step)]
    }

    static let request: [UInt8] = [5, 1, 0, 3, 9] + "host.test".utf8 + [0x1F, 0x90]

    static let cases = [
        Case(
            testDescription: "no authentication, a name",
            dialogue: [([5, 0], .send(request)), ([5, 0, 0, 1, 10, 0, 0, 1, 0, 80], .open)]),
        Case(
            testDescription: "an IPv4 address, answered with a name", destination: .address([192, 0, 2, 9]),
            dialogue: [
                ([5, 0], .send([5, 1, 0, 1, 192, 0, 2, 9, 0x1F, 0x90])), ([5, 0, 0, 3, 3] + "abc".utf8 + [0, 80], .open),
            ]),
        Case(
            testDescription: "an IPv6 address, answered with one", destination: .address([UInt8](repeating: 1, count: 16)),
            dialogue: [
                ([5, 0], .send([5, 1, 0, 4] + [UInt8](repeating: 1, count: 16) + [0x1F, 0x90])),
                ([5, 0, 0, 4] + [UInt8](repeating: 2, count: 16) + [0, 80], .open),
            ]),
        Case(
            testDescription: "user and password", credentials: credentials,
            dialogue: [
                ([5, 2], .send([1, 2] + "me".utf8 + [2] + "pw".utf8)), ([1, 0], .send(request)),
                ([5, 0, 0, 1, 0, 0, 0, 0, 0, 0], .open),
            ]),
        Case(
            testDescription: "credentials that are not wanted", credentials: credentials,
            dialogue: [([5, 0], .send(request)), ([5, 0, 0, 1, 0, 0, 0, 0, 0, 0], .open)]),
    ]

    @Test("handshakes, whole, byte by byte and followed by bytes of the tunnel", arguments: cases)
    func dialogue(_ example: Case) throws {
        for cutsIntoBytes in [false, true] {
            var handshake = try SOCKSHandshake(to: example.destination, port: 8080, credentials: example.credentials)
            #expect(handshake.greeting == (example.credentials == nil ? [5, 1, 0] : [5, 2, 0, 2]))
            for (answer, expected) in example.dialogue {
                var consumed = 0
                var step = SOCKSHandshake.Step.wait
                if cutsIntoBytes {
                    for (index, byte) in answer.enumerated() {
                        #expect(step == .wait)
                        step = try handshake.receive([byte].span, consumed: &consumed)
                        #expect(consumed == 1, "byte \(index)")
                    }
                } else {
                    step = try handshake.receive((answer + [0xEE, 0xEE]).span, consumed: &consumed)
                    #expect(consumed == answer.count, "what follows was touched")
                }
                #expect(step == expected)
            }
        }
    }

    @Test(
        "refusals",
        arguments: [
            ([[5, 0xFF]], false, SOCKSViolation.credentialsRequired), ([[5, 0xFF]], true, .noAcceptableMethod),
            ([[4, 0]], false, .malformed("version 4")), ([[5, 2]], false, .malformed("a method that was not offered")),
            ([[5, 1]], false, .malformed("a method that was not offered")), ([[5, 2], [1, 1]], true, .credentialsRefused),
            ([[5, 2], [5, 0]], true, .malformed("authentication version 5")),
            ([[5, 0], [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]], false, .refused(5)),
            ([[5, 0], [5, 0, 0, 9, 0]], false, .malformed("address type 9")),
            ([[5, 0], [72, 84, 84, 80, 47]], false, .malformed("address type 80")),
        ] as [([[UInt8]], Bool, SOCKSViolation)])
    func refusal(answers: [[UInt8]], hasCredentials: Bool, expected: SOCKSViolation) throws {
        var handshake = try SOCKSHandshake(to: .name("h"), port: 1, credentials: hasCredentials ? Self.credentials : nil)
        var consumed = 0
        for answer in answers.dropLast() { _ = try handshake.receive(answer.span, consumed: &consumed) }
        let last = try #require(answers.last)
        #expect(throws: expected) { _ = try handshake.receive(last.span, consumed: &consumed) }
        #expect(!expected.description.isEmpty)
    }

    @Test("a value too long for a length byte is refused before anything is sent")
    func lengths() throws {
        let long = String(repeating: "x", count: 256)
        #expect(throws: SOCKSViolation.hostTooLong(256)) { try SOCKSHandshake(to: .name(long), port: 1, credentials: nil) }
        #expect(throws: SOCKSViolation.hostTooLong(0)) { try SOCKSHandshake(to: .name(""), port: 1, credentials: nil) }
        for (user, password) in [(long, "x"), ("x", long), ("", "x"), ("x", "")] {
            let credentials = try #require(BasicCredentials(user: user, password: password))
            #expect(throws: SOCKSViolation.credentialsTooLong) { try SOCKSHandshake(to: .name("h"), port: 1, credentials: credentials) }
        }
    }
}

@Suite("RFC 7617: basic credentials")
struct BasicCredentialsTests {
    @Test(
        "examples of the RFC",
        arguments: [("Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), ("test", "123£", "dGVzdDoxMjPCow==")])
    func examples(user: String, password: String, encoded: String) throws {
        #expect(try #require(BasicCredentials(user: user, password: password)).fieldValue == "Basic \(encoded)")
    }

    @Test(
        "a user with a colon, or a control character, is refused",
        arguments: [("a:b", "c"), ("a\r\n", "c"), ("a", "c\u{0}"), ("a", "\u{7F}")])
    func refused(user: String, password: String) { #expect(BasicCredentials(user: user, password: password) == nil) }
}
