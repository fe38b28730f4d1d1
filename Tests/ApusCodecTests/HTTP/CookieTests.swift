import ApusCodec
import Testing

@Suite("RFC 6265bis: cookies of a request")
struct CookiesTests {
    @Test(
        "fields",
        arguments: [
            ([], []), ([""], []), (["a=1"], ["a|1"]), (["a=1; b=2"], ["a|1", "b|2"]), (["a=1;b=2;"], ["a|1", "b|2"]),
            (["a=1", "b=2"], ["a|1", "b|2"]), (["a=1; a=2"], ["a|1", "a|2"]), (["a"], []), (["=a"], []), (["=__Host-a=1; b=2"], ["b|2"]),
            ([" a = 1 2 ;\tb=2"], ["a|1 2", "b|2"]), (["a=b=c"], ["a|b=c"]), (["a=\"1, 2\""], ["a|\"1, 2\""]), (["a=%41+"], ["a|%41+"]),
            (["a=; b="], ["a|", "b|"]), ([";;; ;"], []), (["ü=ß"], ["ü|ß"]), (["A=1; a=2"], ["A|1", "a|2"]),
            (["a=\"x;y\""], ["a|\"x"]),
        ] as [([String], [String])])
    func fields(values: [String], expected: [String]) throws {
        var fields = try HTTPFields(["Host": "h"])
        for value in values { try fields.append("Cookie", value) }
        let cookies = Cookies(fields)
        #expect(cookies.map { "\($0.name)|\($0.value)" } == expected)
        #expect(cookies.count == expected.count)
        #expect(cookies.isEmpty == expected.isEmpty)
    }

    @Test("the first of a name is the most specific one")
    func first() throws {
        let cookies = Cookies(try HTTPFields(["Cookie": "id=1; theme=x", "cookie": "id=2"]))
        #expect(cookies["id"] == "1")
        #expect(cookies["theme"] == "x")
        #expect(cookies["ID"] == nil)
    }
}

@Suite("RFC 6265bis §4.1: Set-Cookie")
struct SetCookieTests {
    @Test(
        "field values",
        arguments: [
            (SetCookie("id", "7"), "id=7; Path=/; Secure; HttpOnly; SameSite=Lax"),
            (SetCookie("id", "", isSecure: false, isHTTPOnly: false, sameSite: nil), "id=; Path=/"),
            (
                SetCookie("id", "\"a=b\"", path: nil, domain: "Example.com", maxAge: .seconds(3600), sameSite: .strict),
                "id=\"a=b\"; Domain=Example.com; Max-Age=3600; Secure; HttpOnly; SameSite=Strict"
            ),
            (
                SetCookie("id", "!#$%&'()*+-./:<=>?@[]^_`{|}~", path: "/a b", expiresSecondsSince1970: 784_111_777, sameSite: nil),
                "id=!#$%&'()*+-./:<=>?@[]^_`{|}~; Path=/a b; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Secure; HttpOnly"
            ),
            (
                SetCookie("__Host-id", "7", sameSite: SetCookie.SameSite.none, isPartitioned: true),
                "__Host-id=7; Path=/; Secure; HttpOnly; SameSite=None; Partitioned"
            ),
            (SetCookie("__Secure-id", "7", domain: "a-1.b"), "__Secure-id=7; Path=/; Domain=a-1.b; Secure; HttpOnly; SameSite=Lax"),
            (SetCookie("id", "7", maxAge: .milliseconds(1)), "id=7; Path=/; Max-Age=1; Secure; HttpOnly; SameSite=Lax"),
            (SetCookie("id", "7", maxAge: .seconds(-5)), "id=7; Path=/; Max-Age=-5; Secure; HttpOnly; SameSite=Lax"),
            (
                SetCookie.removing("id", path: "/a"),
                "id=; Path=/a; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure; HttpOnly; SameSite=Lax"
            ),
        ])
    func values(cookie: SetCookie, expected: String) throws {
        #expect(try cookie.fieldValue() == expected)
        #expect(throws: Never.self) { try HTTPFields(["Set-Cookie": expected]) }
    }

    static let long = String(repeating: "x", count: 4096)

    @Test(
        "cookies that are refused",
        arguments: [
            (SetCookie("", "7"), .invalidName("")), (SetCookie("a b", "7"), .invalidName("a b")),
            (SetCookie("a=b", "7"), .invalidName("a=b")),
            (SetCookie("ü", "7"), .invalidName("ü")), (SetCookie("a\r\nX: y", "7"), .invalidName("a\r\nX: y")),
            (SetCookie("a", "7; Domain=evil"), .invalidValue(name: "a", byte: 0x3B)),
            (SetCookie("a", "x y"), .invalidValue(name: "a", byte: 0x20)),
            (SetCookie("a", "x,y"), .invalidValue(name: "a", byte: 0x2C)), (SetCookie("a", "\"x"), .invalidValue(name: "a", byte: 0x22)),
            (SetCookie("a", "\""), .invalidValue(name: "a", byte: 0x22)),
            (SetCookie("a", "\"x\"y\""), .invalidValue(name: "a", byte: 0x22)),
            (SetCookie("a", "x\\"), .invalidValue(name: "a", byte: 0x5C)), (SetCookie("a", "\r\n"), .invalidValue(name: "a", byte: 0x0D)),
            (SetCookie("a", "\0"), .invalidValue(name: "a", byte: 0)), (SetCookie("a", "ü"), .invalidValue(name: "a", byte: 0xC3)),
            (SetCookie("a", "7", path: ""), .invalidPath("")), (SetCookie("a", "7", path: "a"), .invalidPath("a")),
            (SetCookie("a", "7", path: "/; Domain=evil"), .invalidPath("/; Domain=evil")),
            (SetCookie("a", "7", path: "/\r\n"), .invalidPath("/\r\n")), (SetCookie("a", "7", path: "/ü"), .invalidPath("/ü")),
            (SetCookie("a", "7", domain: ""), .invalidDomain("")), (SetCookie("a", "7", domain: ".a.b"), .invalidDomain(".a.b")),
            (SetCookie("a", "7", domain: "a.b; x"), .invalidDomain("a.b; x")), (SetCookie("a", "7", domain: "a\n"), .invalidDomain("a\n")),
            (SetCookie("a", long), .tooLong(name: "a", limit: 4096)),
            (SetCookie("a", "", path: "/" + String(repeating: "x", count: 1024)), .tooLong(name: "a", limit: 1024)),
            (SetCookie("a", "7", isSecure: false, sameSite: SetCookie.SameSite.none), .secureRequired(name: "a", by: "SameSite=None")),
            (SetCookie("a", "7", isSecure: false, isPartitioned: true), .secureRequired(name: "a", by: "Partitioned")),
            (SetCookie("__secure-a", "7", isSecure: false), .secureRequired(name: "__secure-a", by: "__secure-")),
            (SetCookie("__Host-a", "7", isSecure: false), .secureRequired(name: "__Host-a", by: "__Host-")),
            (SetCookie("__Host-a", "7", path: "/a"), .hostPrefix(name: "__Host-a")),
            (SetCookie("__Host-a", "7", path: nil), .hostPrefix(name: "__Host-a")),
            (SetCookie("__HOST-a", "7", domain: "a.b"), .hostPrefix(name: "__HOST-a")),
        ] as [(SetCookie, SetCookieFault)])
    func refused(cookie: SetCookie, fault: SetCookieFault) {
        #expect(throws: fault) { try cookie.fieldValue() }
        #expect(fault.description.contains("expected "))
        #expect(!fault.description.utf8.contains { $0 < 0x20 })
    }

    @Test("the longest cookie")
    func longest() throws {
        #expect(try SetCookie("a", String(repeating: "x", count: 4095)).fieldValue().utf8.count > 4096)
    }
}
