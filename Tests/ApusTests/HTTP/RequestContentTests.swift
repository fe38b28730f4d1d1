import Apus
import ApusCodec
import Testing

@Suite("What a request contains")
struct RequestContentTests {
    private static func server() throws -> TestServer {
        try TestServer { server in
            server.get("/cookie") { .text($0.cookies["a"] ?? "none") }
            server.get("/login") { request in
                guard let (user, password) = request.basicCredentials else {
                    throw Rejection(.unauthorized, fields: ["WWW-Authenticate": "Basic realm=\"x\""])
                }
                return .text("\(user)|\(password)", fields: ["Set-Cookie": try SetCookie("s", "1").fieldValue()])
            }
            server.post("/form") { .text(try $0.form().map { "\($0.name)=\($0.value)" }.joined(separator: ";")) }
        }
    }

    @Test("cookies")
    func cookies() throws {
        let server = try Self.server()
        let client = try server.client()
        #expect(try client.request("GET /cookie", "Cookie: b=1; a=2; a=3\r\n").text == "2")
        #expect(try client.request("GET /cookie").text == "none")
    }

    @Test(
        "Basic credentials",
        arguments: [
            ("Basic dXNlcjpwYXNz", "user|pass"), ("basic  dXNlcjpwOnc=", "user|p:w"), ("Basic Og==", "|"), ("Basic dXNlcg==", nil),
            ("Basic !!!!", nil), ("Bearer dXNlcjpwYXNz", nil), ("Basic dXNlcjpwYXN", nil), ("Basic /////w==", nil), ("Basic", nil),
        ] as [(String, String?)])
    func basic(field: String, expected: String?) throws {
        let server = try Self.server()
        let response = try server.client().request("GET /login", "Authorization: \(field)\r\n")
        #expect(response.status == (expected == nil ? 401 : 200))
        if let expected { #expect(response.text == expected && response["set-cookie"]?.hasPrefix("s=1; ") == true) }
    }

    @Test("forms, in both encodings")
    func forms() throws {
        let server = try Self.server()
        let client = try server.client()
        let plain = "a=1&b=x+y%21&c="
        let type = "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
        #expect(try client.request("POST /form", "\(type)Content-Length: \(plain.utf8.count)\r\n", body: plain).text == "a=1;b=x y!;c=")
        let parts = [
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\ntwo\r\n",
            "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain\r\n\r\nfile\r\n",
            "--B\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n\r\n--B--\r\n",
        ].joined()
        let multipart = "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: \(parts.utf8.count)\r\n"
        #expect(try client.request("POST /form", multipart, body: parts).text == "a=one\r\ntwo;b=")
        #expect(try client.request("POST /form", "Content-Type: text/plain\r\nContent-Length: 1\r\n", body: "a").status == 415)
        #expect(try client.request("POST /form", "Content-Length: 1\r\n", body: "a").status == 415)
        let cut = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none"
        let short = "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: \(cut.utf8.count)\r\n"
        #expect(try client.request("POST /form", short, body: cut).status == 400)
    }
}
