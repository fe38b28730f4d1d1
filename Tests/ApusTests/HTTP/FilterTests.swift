import ApusCodec
import ApusPlatform
import Testing

@testable import Apus

@Suite("Filters of browsers and users")
struct FilterTests {
    private static func server(_ more: (inout Server) -> Void) throws -> TestServer {
        try TestServer { server in
            more(&server)
            server.get("/items") { _ in .text("list", fields: ["Referrer-Policy": "no-referrer"]) }
            server.get("/admin/items") { _ in .text("secret") }
            server.get("/adminitems") { _ in .text("open") }
            server.webSocket("echo", at: "/admin/socket") { _ in Silent() }
        }
    }

    // MARK: Other origins

    private static func policy(_ change: (inout CrossOriginPolicy) -> Void = { _ in }) -> CrossOriginPolicy {
        var policy = CrossOriginPolicy(origins: .list(["https://app.example"]))
        policy.methods = [.get, .put]
        policy.exposedFields = ["X-Total"]
        change(&policy)
        return policy
    }

    private static let preflight = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: content-type\r\n"

    @Test("a page of an allowed origin may ask and read, another may not")
    func origins() throws {
        let server = try Self.server { $0.use(Self.policy { $0.allowsCredentials = true }) }
        let client = try server.client()
        let asked = try client.request("OPTIONS /items", "Origin: https://app.example\r\n" + Self.preflight)
        #expect(asked.status == 204 && asked["access-control-allow-origin"] == "https://app.example")
        #expect(asked["access-control-allow-methods"] == "GET, PUT" && asked["access-control-max-age"] == "600")
        #expect(asked["access-control-allow-headers"] == "Authorization, Content-Type")
        #expect(asked["access-control-allow-credentials"] == "true" && asked["vary"] == "Origin" && asked["allow"] == nil)
        let read = try client.request("GET /items", "Origin: https://app.example\r\n")
        #expect(read.text == "list" && read["access-control-allow-origin"] == "https://app.example")
        #expect(read["access-control-expose-headers"] == "X-Total" && read["access-control-allow-methods"] == nil)
        for origin in ["https://app.example.evil", "http://app.example", "https://app.example:8443", "null", "x"] {
            let fields = "Origin: \(origin)\r\n"
            let refused = try client.request("OPTIONS /items", fields + Self.preflight)
            #expect(refused["access-control-allow-origin"] == nil && refused["access-control-allow-methods"] == nil, "\(origin)")
            let unreadable = try client.request("GET /items", fields)
            #expect(unreadable["access-control-allow-origin"] == nil && unreadable["vary"] == "Origin", "\(origin)")
        }
        // Errors can be read as well, and OPTIONS that is no preflight is answered as without the policy.
        #expect(try client.request("GET /nowhere", "Origin: https://app.example\r\n")["access-control-allow-origin"] != nil)
        #expect(try client.request("OPTIONS /items", "Origin: https://app.example\r\n")["allow"] == "GET, HEAD, OPTIONS")
    }

    @Test("any origin is answered with *, and caches need not tell them apart")
    func anyOrigin() throws {
        let server = try Self.server { $0.use(CrossOriginPolicy(origins: .any)) }
        let response = try server.client().request("GET /items", "Origin: https://somewhere.example\r\n")
        #expect(response["access-control-allow-origin"] == "*" && response["vary"] == nil)
        #expect(response["access-control-allow-credentials"] == nil)
    }

    @Test("preflight requests pass filters that were added later")
    func preflightBeforeUsers() throws {
        let server = try Self.server {
            $0.use(Self.policy())
            $0.use(BasicAuthentication(realm: "all", passwords: ["ann": "secret"]))
        }
        let client = try server.client()
        #expect(try client.request("OPTIONS /items", "Origin: https://app.example\r\n" + Self.preflight).status == 204)
        let refused = try client.request("GET /items", "Origin: https://app.example\r\n")
        #expect(refused.status == 401 && refused["access-control-allow-origin"] == "https://app.example")
    }

    @Test(
        "policies that cannot work are configuration errors",
        arguments: [
            (
                policy {
                    $0.origins = .any; $0.allowsCredentials = true
                }, "list of origins"
            ),
            (policy { $0.origins = .list(["https://app.example/"]) }, "no slash"),
            (policy { $0.requestFields = ["two words"] }, "two words"), (policy { $0.maxAge = .seconds(-1) }, "maxAge"),
        ])
    func faults(policy: CrossOriginPolicy, words: String) {
        var server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        server.use(policy)
        let error = #expect(throws: ConfigurationError.self) { try server.validate() }
        #expect(error.map { "\($0)".contains(words) } == true, "\(error.map { "\($0)" } ?? "")")
    }

    // MARK: Security headers

    @Test("security headers are in every response, except those that it has, and HSTS without TLS")
    func securityHeaders() throws {
        let server = try Self.server {
            var headers = SecurityHeaders()
            headers.contentSecurityPolicy = "default-src 'self'"
            headers.frameOptions = nil
            $0.use(headers)
        }
        let client = try server.client()
        for path in ["/items", "/nowhere"] {
            let response = try client.request("GET \(path)")
            #expect(response["x-content-type-options"] == "nosniff" && response["content-security-policy"] == "default-src 'self'")
            #expect(response["referrer-policy"] == (path == "/items" ? "no-referrer" : "strict-origin-when-cross-origin"))
            #expect(response["x-frame-options"] == nil && response["strict-transport-security"] == nil)
        }
    }

    // MARK: Networks

    static let clients: [(proxies: TrustedProxies?, fields: String, expected: String)] = [
        (nil, "X-Forwarded-For: 10.9.8.7\r\nX-Forwarded-Proto: https\r\n", "127.0.0.1 - http a"),
        (TrustedProxies(["10.0.0.0/8"]), "X-Forwarded-For: 10.9.8.7\r\n", "127.0.0.1 - http a"),
        (TrustedProxies(["127.0.0.1"]), "", "127.0.0.1 - http a"),
        (
            TrustedProxies(["127.0.0.0/8"]),
            "X-Forwarded-For: 1.1.1.1, 10.9.8.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: www.example\r\n",
            "10.9.8.7 - https www.example"
        ),
        (TrustedProxies(["127.0.0.1", "10.0.0.0/8"]), "X-Forwarded-For: 1.1.1.1, 10.9.8.7\r\n", "1.1.1.1 - http a"),
        (TrustedProxies(["127.0.0.1"]), "Forwarded: for=10.9.8.7\r\n", "127.0.0.1 - http a"),
        (
            TrustedProxies(["127.0.0.1"], fields: .forwarded), "Forwarded: for=\"[2001:db8::1]:8080\";proto=https\r\n",
            "2001:db8::1 - https a"
        ),
        (TrustedProxies(["127.0.0.1"], fields: .forwarded), "Forwarded: for=_hidden\r\n", "127.0.0.1 _hidden http a"),
        (TrustedProxies(["127.0.0.1"], fields: .forwarded), "X-Forwarded-For: 10.9.8.7\r\n", "127.0.0.1 - http a"),
    ]

    @Test("the client is the peer, or whom trusted proxies name", arguments: clients.indices)
    func client(index: Int) throws {
        let (proxies, fields, expected) = Self.clients[index]
        let server = try TestServer { server in
            server.trustedProxies = proxies
            server.get("/who") { request in
                let client = request.client
                return .text("\(client.address.host) \(client.name ?? "-") \(client.scheme) \(client.host ?? "-")")
            }
        }
        #expect(try server.client().request("GET /who", fields).text == expected)
    }

    @Test("only clients of some networks are served, at a path and below it")
    func networks() throws {
        let server = try Self.server { server in
            server.trustedProxies = TrustedProxies(["127.0.0.1"])
            server.use(ClientNetworks(at: "/admin", allow: ["10.0.0.0/8", "2001:db8::/32"], except: ["10.6.6.6"]))
            server.use(ClientNetworks(deny: ["192.168.0.0/16"]))
        }
        let client = try server.client()
        for (address, admin, items) in [
            ("10.1.1.1", 200, 200), ("10.6.6.6", 403, 200), ("2001:db8::7", 200, 200), ("11.1.1.1", 403, 200), ("192.168.1.1", 403, 403),
            ("nonsense", 403, 200),
        ] {
            #expect(try client.request("GET /admin/items", "X-Forwarded-For: \(address)\r\n").status == admin, "\(address)")
            #expect(try client.request("GET /items", "X-Forwarded-For: \(address)\r\n").status == items, "\(address)")
        }
        #expect(try client.request("GET //admin/items").status == 403)
    }

    @Test("a peer on a Unix socket is in the networks by its name")
    func unixPeers() throws {
        let local = SocketAddress.unix(path: ""), remote = SocketAddress.ipv4(0x7F00_0001, port: 1)
        #expect(try PeerNetworks(["unix:"]).contains(local) && !PeerNetworks(["unix:"]).contains(remote))
        #expect(try !PeerNetworks(["127.0.0.0/8"]).contains(local) && PeerNetworks(["127.0.0.0/8", "unix:"]).contains(remote))
        #expect(try !PeerNetworks(["0.0.0.0/0", "::/0"]).contains(local), "a network of all addresses has no Unix sockets")
    }

    @Test(
        "networks that are none are configuration errors",
        arguments: [(["10.0.0.1/8"], "10.0.0.0/8"), (["localhost"], "localhost")])
    func networkFaults(networks: [String], words: String) {
        var server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        server.use(ClientNetworks(allow: networks))
        let error = #expect(throws: ConfigurationError.self) { try server.validate() }
        #expect(error.map { "\($0)".contains(words) } == true)
        server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        server.trustedProxies = TrustedProxies(networks)
        let other = #expect(throws: ConfigurationError.self) { try server.validate() }
        #expect(other.map { "\($0)".contains(words) } == true)
    }

    // MARK: Users

    @Test("a user and a password are asked for at a path and below it, by any spelling of it")
    func users() throws {
        let server = try Self.server {
            $0.use(BasicAuthentication(at: "/admin", realm: "the back", passwords: ["ann": "o:pen", "bob": ""]))
        }
        let client = try server.client()
        // ann:o:pen, bob:, ann:open, eve:o:pen, no base 64
        let credentials = ["YW5uOm86cGVu": true, "Ym9iOg==": true, "YW5uOm9wZW4=": false, "ZXZlOm86cGVu": false, "??": false]
        for (value, isValid) in credentials {
            let response = try client.request("GET /admin/items", "Authorization: Basic \(value)\r\n")
            #expect(response.status == (isValid ? 200 : 401), "\(value)")
            #expect(response["www-authenticate"] == (isValid ? nil : "Basic realm=\"the back\", charset=\"UTF-8\""))
        }
        for path in ["/admin", "/admin/", "//admin/items", "/x/../admin/items", "/%61dmin/items", "/admin//items", "/admin/nowhere"] {
            #expect(try client.request("GET \(path)").status == 401, "\(path)")
        }
        #expect(try client.request("GET /adminitems").text == "open")
        client.send(Client.handshake("/admin/socket"))
        #expect(try client.response().status == 401)
        client.send(Client.handshake("/admin/socket", fields: "Authorization: Basic YW5uOm86cGVu\r\n"))
        #expect(try client.response().status == 101)
    }

    @Test("realms and paths that cannot work are configuration errors", arguments: [("a \"b\"", "/"), ("a\nb", "/"), ("a", "admin")])
    func userFaults(realm: String, path: String) {
        var server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        server.use(BasicAuthentication(at: path, realm: realm, passwords: [:]))
        #expect(throws: ConfigurationError.self) { try server.validate() }
    }
}

private final class Silent: WebSocketHandler {}
