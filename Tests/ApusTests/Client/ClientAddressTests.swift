import Testing

@testable import Apus

@Suite("Addresses of clients")
struct ClientAddressTests {
    struct Good: CustomTestStringConvertible, Sendable {
        let text: String
        let host: String
        let port: UInt16
        let target: String
        let authority: String
        var testDescription: String { text }
    }

    static let good = [
        Good(text: "ws://host", host: "host", port: 80, target: "/", authority: "host"),
        Good(text: "wss://host", host: "host", port: 443, target: "/", authority: "host"),
        Good(text: "WSS://Host:443/a", host: "Host", port: 443, target: "/a", authority: "Host"),
        Good(text: "ws://host:443/", host: "host", port: 443, target: "/", authority: "host:443"),
        Good(
            text: "http://a.b-c_d.e./x/../y?q=1&r=%20", host: "a.b-c_d.e.", port: 80, target: "/x/../y?q=1&r=%20", authority: "a.b-c_d.e."),
        Good(text: "https://127.0.0.1:8443?q", host: "127.0.0.1", port: 8443, target: "/?q", authority: "127.0.0.1:8443"),
        Good(text: "ws://[::1]/", host: "::1", port: 80, target: "/", authority: "[::1]"),
        Good(text: "ws://[2001:db8::7]:65535/x", host: "2001:db8::7", port: 65535, target: "/x", authority: "[2001:db8::7]:65535"),
        Good(text: "ws://me:p%40ss@host/x@y", host: "host", port: 80, target: "/x@y", authority: "host"),
        Good(text: "ws+unix:///run/socket", host: "/run/socket", port: 0, target: "/", authority: "localhost"),
        Good(text: "ws+unix:///run/a%20b:/chat?x", host: "/run/a b", port: 0, target: "/chat?x", authority: "localhost"),
        Good(text: "http+unix:///run/a:b:/", host: "/run/a:b", port: 0, target: "/", authority: "localhost"),
    ]

    @Test("that can be connected to", arguments: good)
    func parses(_ example: Good) throws {
        let address = try ClientAddress(parsing: example.text)
        #expect(address.host == example.host && address.port == example.port && address.target == example.target)
        #expect(address.authority == example.authority)
        // What it says of itself leads to the same place.
        let again = try ClientAddress(parsing: address.description.replacing("a b", with: "a%20b"))
        #expect(again.host == address.host && again.port == address.port && again.target == address.target)
    }

    @Test(
        "that cannot: the reason says what is wrong",
        arguments: [
            ("", "ws://HOST"), ("host", "ws://HOST"), ("ws:/host", "ws://HOST"), ("ftp://host/", "scheme ftp"),
            ("ws://", "host is missing"),
            ("ws://:80/", "host is missing"), ("ws:///path", "host is missing"), ("ws://host:0/", "port \"0\""),
            ("ws://host:65536/", "65536"),
            ("ws://host:/", "port \"\""), ("ws://host:+80/", "port"), ("ws://host:80x/", "port"), ("ws://::1/", "[::1]"),
            ("ws://[::1/", "closing bracket"),
            ("ws://[::1]x/", "after the bracket"), ("ws://[host]/", "an IPv6 address"), ("ws://[1.2.3.4]/", "an IPv6 address"),
            ("ws://ho st/", "0x20"), ("ws://host/a b", "0x20"), ("ws://host/\r\nX: y", "0x0D"), ("ws://host/\n", "0x0A"),
            ("ws://host/\u{0}", "0x00"),
            ("ws://hôst/", "punycode"), ("ws://host/#part", "fragment"), ("ws://a..b/", "label"), ("ws://ho%73t/", "\"%\""),
            ("ws://ho\\st/", "\\"),
            ("ws://\(String(repeating: "a", count: 64))/", "63"), ("ws://\(String(repeating: "a.", count: 127))a/", "253"),
            ("ws+unix://relative", "ws+unix:///PATH"), ("ws+unix:///%zz", "percent"), ("ws+unix:///a%00b", "percent"),
            ("ws+unix:///\(String(repeating: "a", count: 200))", "107"), ("ws://me:%0a@host/", "control"),
            ("ws://a%3Ab:c@host/", "control"),
        ])
    func refuses(text: String, words: String) throws {
        let error = #expect(throws: ConnectError.self) { try ClientAddress(parsing: text) }
        #expect(error?.stage == .request)
        #expect(error?.description.contains(words) == true, "\(error?.description ?? "")")
        // One line, whatever the address holds.
        #expect(error?.description.contains { $0.isNewline } == false)
    }

    @Test("a password appears in no description")
    func password() throws {
        #expect(try !ClientAddress(parsing: "ws://me:secret@host/").description.contains("secret"))
        let error = #expect(throws: ConnectError.self) { try ClientAddress(parsing: "ws://me:secret@host:x/") }
        #expect(error?.description.contains("secret") == false)
        #expect(try !Proxy(parsing: "me:secret@host").description.contains("secret"))
        let proxy = #expect(throws: ConnectError.self) { try Proxy(parsing: "me:secret@ho st") }
        #expect(proxy?.description.contains("secret") == false)
    }

    @Test(
        "where a Location leads (RFC 3986 §5.4)",
        arguments: [
            ("ws://a/b/c/d?q", "g", "ws://a/b/c/g"), ("ws://a/b/c/d?q", "./g", "ws://a/b/c/g"), ("ws://a/b/c/d?q", "g/", "ws://a/b/c/g/"),
            ("ws://a/b/c/d?q", "/g", "ws://a/g"), ("ws://a/b/c/d?q", "//g", "ws://g/"), ("ws://a/b/c/d?q", "?y", "ws://a/b/c/d?y"),
            ("ws://a/b/c/d?q", "g?y", "ws://a/b/c/g?y"), ("ws://a/b/c/d?q", "#s", "ws://a/b/c/d?q"),
            ("ws://a/b/c/d?q", "g#s", "ws://a/b/c/g"),
            ("ws://a/b/c/d?q", "", "ws://a/b/c/d?q"), ("ws://a/b/c/d?q", ".", "ws://a/b/c/"), ("ws://a/b/c/d?q", "..", "ws://a/b/"),
            ("ws://a/b/c/d?q", "../g", "ws://a/b/g"), ("ws://a/b/c/d?q", "../../../g", "ws://a/g"), ("ws://a/b/c/d?q", "/../g", "ws://a/g"),
            ("ws://a/", "http://b:81/x", "ws://b:81/x"), ("ws://a/", "https://b/x", "wss://b/x"),
            ("https://a/", "wss://b/x", "https://b/x"),
            ("wss://a/", "//b/x", "wss://b/x"), ("ws://a/", "x?u=http://c/", "ws://a/x?u=http://c/"),
        ])
    func reference(base: String, location: String, expected: String) throws {
        #expect(try ClientAddress(parsing: base).resolving(location) == ClientAddress(parsing: expected))
    }

    @Test("where a Location cannot lead", arguments: ["ws+unix:///run/x", "ftp://b/", "http://", "/a b", "//h:0/", "/\u{7F}"])
    func badReference(location: String) throws {
        let base = try ClientAddress(parsing: "ws://a/")
        #expect(throws: ConnectError.self) { try base.resolving(location) }
    }
}

@Suite("Which proxy a client goes through")
struct ProxyChoiceTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let variables: [String: String]
        let address: String
        let proxy: String?
        var testDescription: String { "\(variables.sorted { $0.key < $1.key }) \(address)" }

        init(_ variables: [String: String], _ address: String, _ proxy: String?) {
            (self.variables, self.address, self.proxy) = (variables, address, proxy)
        }
    }

    static let both = ["http_proxy": "http://p:1", "https_proxy": "p:2"]
    static func except(_ list: String) -> [String: String] { ["all_proxy": "socks5://p:3", "no_proxy": list] }

    static let cases = [
        Case([:], "ws://h/", nil), Case(both, "ws://h/", "http://p:1"), Case(both, "http://h/", "http://p:1"),
        Case(both, "wss://h/", "http://p:2"), Case(both, "https://h/", "http://p:2"),
        Case(["HTTP_PROXY": "p:1"], "ws://h/", nil), Case(["HTTPS_PROXY": "p:2"], "wss://h/", "http://p:2"),
        Case(["http_proxy": ""], "ws://h/", nil), Case(["https_proxy": "", "HTTPS_PROXY": "p:2"], "wss://h/", "http://p:2"),
        Case(["all_proxy": "socks5h://p"], "ws://h/", "socks5://p:1080"), Case(["ALL_PROXY": "p"], "wss://h/", "http://p:3128"),
        Case(both, "ws://localhost/", nil), Case(both, "ws://a.localhost./", nil), Case(both, "ws://127.9.9.9/", nil),
        Case(both, "ws://[::1]/", nil), Case(both, "ws://[::ffff:127.0.0.1]/", nil), Case(both, "ws+unix:///run/s", nil),
        Case(except("*"), "ws://h/", nil), Case(except("h"), "ws://h/", nil), Case(except("H."), "ws://h/", nil),
        Case(except("h"), "ws://H./", nil), Case(except("h"), "ws://a.h/", nil), Case(except(".h"), "ws://a.h/", nil),
        Case(except(".h"), "ws://h/", nil), Case(except("*.h"), "ws://a.h/", nil), Case(except("h"), "ws://ah/", "socks5://p:3"),
        Case(except("a.h"), "ws://h/", "socks5://p:3"), Case(except("x, h ,y"), "ws://h/", nil),
        Case(except(", ,"), "ws://h/", "socks5://p:3"),
        Case(except("h:80"), "ws://h/", nil), Case(except("h:81"), "ws://h/", "socks5://p:3"), Case(except("h:81"), "ws://h:81/", nil),
        Case(except("10.0.0.0/8"), "ws://10.1.2.3/", nil), Case(except("10.0.0.0/8"), "ws://11.1.2.3/", "socks5://p:3"),
        Case(except("10.0.0.0/33"), "ws://10.1.2.3/", "socks5://p:3"), Case(except("0.0.0.0/0"), "ws://8.8.8.8/", nil),
        Case(except("10.1.2.3"), "ws://10.1.2.3/", nil), Case(except("1.2.3"), "ws://10.1.2.3/", "socks5://p:3"),
        Case(except("10.1.2.3:80"), "ws://10.1.2.3/", nil), Case(except("2001:db8::/32"), "ws://[2001:db8:1::1]/", nil),
        Case(except("2001:db8::/32"), "ws://[2001:db9::1]/", "socks5://p:3"), Case(except("2001:db8::1"), "ws://[2001:db8:0::1]/", nil),
        Case(except("[2001:db8::1]:80"), "ws://[2001:db8::1]/", nil),
        Case(except("[2001:db8::1]:81"), "ws://[2001:db8::1]/", "socks5://p:3"),
        Case(except("2001:db8::/128"), "ws://[2001:db8::1]/", "socks5://p:3"), Case(except("10.0.0.0/8"), "ws://h/", "socks5://p:3"),
        Case(["all_proxy": "p", "NO_PROXY": "h"], "ws://h/", nil),
    ]

    @Test("by the environment", arguments: cases)
    func environment(_ example: Case) throws {
        let environment = ProxyEnvironment { example.variables[$0] }
        #expect(try environment.proxy(to: ClientAddress(parsing: example.address))?.description == example.proxy)
    }

    @Test("an environment that makes no sense names the variable")
    func nonsense() throws {
        let environment = ProxyEnvironment { $0 == "http_proxy" ? "ftp://p" : nil }
        let error = #expect(throws: ConnectError.self) { try environment.proxy(to: ClientAddress(parsing: "ws://h/")) }
        #expect(error?.description.contains("http_proxy") == true && error?.stage == .request)
    }

    @Test("proxies that make no sense", arguments: ["", "http://", "p:0", "p:x", "a b", "https://p", "[::1", "user@", "%zz:x@h"])
    func malformed(text: String) { #expect(throws: ConnectError.self) { try Proxy(parsing: text) } }

    @Test("options come before the worker, which comes before the environment")
    func precedence() throws {
        let address = try ClientAddress(parsing: "ws://h/")
        let proxy = try Proxy(parsing: "me:pw@[::1]:8080/")
        #expect(try ProxyChoice.through(proxy).proxy(to: address) == proxy)
        #expect(proxy.description == "http://[::1]:8080")
        #expect(try ProxyChoice.none.proxy(to: address) == nil)
        #expect(try ProxyChoice.through(proxy).proxy(to: ClientAddress(parsing: "ws+unix:///x")) == nil)
    }
}

@Suite("Reconnecting")
struct BackoffTests {
    private static func policy(_ change: (inout ReconnectPolicy) -> Void = { _ in }) -> ReconnectPolicy {
        var policy = ReconnectPolicy()
        change(&policy)
        return policy
    }

    @Test("the longest pause doubles up to the limit; the pause is a random part of it")
    func doubling() {
        for random in [0.0, 0.25, 1.0] {
            var backoff = Backoff(Self.policy())
            let pauses = (0..<10).map { _ in backoff.pause(after: .failed(retryAfter: nil), random: random) }
            #expect(pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60].map { .seconds($0) * random })
        }
    }

    @Test("a connection that was open for long begins anew, one that was not goes on")
    func reset() {
        var backoff = Backoff(Self.policy())
        for _ in 0..<4 { _ = backoff.pause(after: .failed(retryAfter: nil), random: 1) }
        #expect(backoff.pause(after: .closed(.abnormal, wasOpenFor: .milliseconds(9999)), random: 1) == .seconds(16))
        #expect(backoff.pause(after: .closed(.abnormal, wasOpenFor: .seconds(10)), random: 1) == .seconds(1))
    }

    @Test("it is given up after so many failures in a row")
    func givenUp() {
        var backoff = Backoff(Self.policy { $0.maxAttempts = 3 })
        #expect(backoff.pause(after: .failed(retryAfter: nil), random: 0) == .zero)
        #expect(backoff.pause(after: .failed(retryAfter: nil), random: 0) == .zero)
        #expect(backoff.pause(after: .failed(retryAfter: nil), random: 0) == nil)
    }

    @Test("the server's word: 1012, 1013 and Retry-After")
    func serversWord() {
        var backoff = Backoff(Self.policy())
        #expect(backoff.pause(after: .closed(.serviceRestart, wasOpenFor: .seconds(60)), random: 0) == .seconds(5))
        #expect(backoff.pause(after: .closed(.serviceRestart, wasOpenFor: .seconds(60)), random: 1) == .seconds(30))
        #expect(backoff.pause(after: .closed(.tryAgainLater, wasOpenFor: .seconds(60)), random: 0) == .seconds(30))
        #expect(backoff.pause(after: .closed(.tryAgainLater, wasOpenFor: .seconds(60)), random: 1) == .seconds(60))
        #expect(backoff.pause(after: .failed(retryAfter: .seconds(77)), random: 0) == .seconds(77))
        #expect(backoff.pause(after: .failed(retryAfter: .seconds(7777)), random: 0) == .seconds(600))
    }

    @Test(
        "what is worth another try",
        arguments: [
            (1000, false), (1001, true), (1002, false), (1003, false), (1005, false), (1006, true), (1007, false), (1008, false),
            (1009, false),
            (1010, false), (1011, true), (1012, true), (1013, true), (1014, true), (3000, false), (4999, false),
        ])
    func codes(code: UInt16, again: Bool) { #expect(Backoff.isWorthwhile(CloseCode(rawValue: code)) == again) }
}
