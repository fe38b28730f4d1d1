import ApusCodec
import Testing

@Suite("RFC 6455 §9.1 Sec-WebSocket-Extensions")
struct ExtensionParametersTests {
    typealias Parameter = ExtensionParameters.Parameter

    static let valid: [(text: String, elements: [ExtensionParameters])] = [
        ("", []), (" \t", []), (",", []), (" , ,\t,", []), ("foo", [.init("foo")]), (" \tfoo\t ", [.init("foo")]),
        ("foo, bar", [.init("foo"), .init("bar")]), (",foo,,bar,", [.init("foo"), .init("bar")]),
        ("foo,foo", [.init("foo"), .init("foo")]), ("foo; a", [.init("foo", [Parameter("a")])]),
        ("foo;a=1", [.init("foo", [Parameter("a", "1")])]),
        ("foo ; a ; b=2", [.init("foo", [Parameter("a"), Parameter("b", "2")])]),
        ("foo; a = 1", [.init("foo", [Parameter("a", "1")])]),
        ("foo; a=1; a=2", [.init("foo", [Parameter("a", "1"), Parameter("a", "2")])]),
        (#"foo; a="10""#, [.init("foo", [Parameter("a", "10")])]),
        (#"foo; a="1\0"; b"#, [.init("foo", [Parameter("a", "10"), Parameter("b")])]),
        ("foo; bar; baz=2, foo2", [.init("foo", [Parameter("bar"), Parameter("baz", "2")]), .init("foo2")]),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits",
            [
                .init("permessage-deflate", [Parameter("client_max_window_bits"), Parameter("server_max_window_bits", "10")]),
                .init("permessage-deflate", [Parameter("client_max_window_bits")]),
            ]
        ), ("!#$%&'*+-.^_`|~09azAZ", [.init("!#$%&'*+-.^_`|~09azAZ")]),
        (Array(repeating: "x", count: 32).joined(separator: ","), Array(repeating: .init("x"), count: 32)),
    ]

    @Test("valid fields are parsed", arguments: valid)
    func accepts(text: String, elements: [ExtensionParameters]) {
        #expect(ExtensionParameters.parse(text) == elements)
    }

    @Test("a description is parsed to the same elements", arguments: valid.filter { !$0.elements.isEmpty })
    func roundTrip(text: String, elements: [ExtensionParameters]) {
        #expect(ExtensionParameters.parse(elements.map(\.description).joined(separator: ", ")) == elements)
    }

    static let malformed: [String] = [
        ";", ";a", "foo;", "foo; ", "foo;;a", "foo; a;", "foo; =1", "foo; a=", "foo; a= ", "foo; a==1", "foo; a=1=2", "foo bar", "foo; a b",
        "foo; a=1 2", "=1", "foo=1", "\"foo\"", "foo; \"a\"=1", #"foo; a=""#, #"foo; a="""#, #"foo; a="1"#, #"foo; a="1\"#, #"foo; a="1\""#,
        #"foo; a="1 2""#, #"foo; a="1,2""#, #"foo; a="é""#, #"foo; a="1"2"#, "foo; a='1' 2", "f(o", "fo/o", "foo@", "foö", "foo\u{0}",
        "foo\u{7F}", "foo, ;", "foo, bar;", "foo; a=[1]", "foo; a=1, bar=", Array(repeating: "x", count: 33).joined(separator: ","),
    ]

    @Test("malformed fields are refused", arguments: malformed)
    func refuses(text: String) {
        #expect(ExtensionParameters.parse(text) == nil)
    }

    @Test("a field cut anywhere is parsed or refused")
    func cut() {
        for (text, _) in Self.valid {
            let octets = Array(text.utf8)
            for end in octets.indices { _ = ExtensionParameters.parse(String(decoding: octets[..<end], as: UTF8.self)) }
        }
    }

    @Test("a field of 16 KiB takes linear time")
    func long() {
        let parameters = ExtensionParameters("x", (0..<3000).map { Parameter("p\($0)") })
        #expect(ExtensionParameters.parse("\(parameters)") == [parameters])
        #expect(ExtensionParameters.parse(String(repeating: ",", count: 16_384)) == [])
    }
}
