import Logging
import Testing

@testable import Apus

private final class Nothing: WebSocketHandler {}

@Suite("Routes that cannot be served")
struct RouteFaultTests {
    struct Fault: CustomTestStringConvertible, @unchecked Sendable {
        let testDescription: String
        let reason: String
        let add: (inout Server) -> Void

        init(_ reason: String, _ add: @escaping (inout Server) -> Void) {
            testDescription = reason
            self.reason = reason
            self.add = add
        }
    }

    static let faults: [Fault] = [
        Fault("http GET at \"items\": expected a path that begins with \"/\", got \"items\"") {
            $0.http(.get, at: "items") { $0.respond() }
        },
        Fault("http GET at \"\": expected a path that begins with \"/\", got \"\"") { $0.http(.get, at: "") { $0.respond() } },
        Fault("http GET at \"/x/*/y\": expected \"*\" only as the whole last segment, got \"*\" before others") {
            $0.http(.get, at: "/x/*/y") { $0.respond() }
        },
        Fault("http GET at \"/a/:b\": expected one name for each parameter, got \"/a/:b\" and \"/a/:c\"") {
            $0.get("/a/:c") { _ in .empty() }
            $0.get("/a/:b") { _ in .empty() }
        },
        Fault("http PUT at \"/a\": expected a limit from 0 bytes for the body, got -1") {
            $0.put("/a", maxBodyBytes: -1) { _ in .empty() }
        },
        Fault("fallback at \"*\": expected one fallback, got two") {
            for _ in 0..<2 { $0.fallback { _ in .empty() } }
        },
        Fault("http GET at \"/a?b\": expected a path, got \"?\" in it") { $0.http(.get, at: "/a?b") { $0.respond() } },
        Fault("http GET at \"/a/../b\": expected a path without dot segments, got \"..\" in it") {
            $0.http(.get, at: "/a/../b") { $0.respond() }
        },
        Fault("http GET at \"/a\": expected each route once, got it twice") {
            $0.http(.get, at: "/a") { $0.respond() }
            $0.http(.post, at: "/a") { $0.respond() }
            $0.http(.get, at: "/a") { $0.respond() }
        },
        Fault("http A B at \"/a\": expected a token (RFC 9110 §9.1), got the method \"A B\"") {
            $0.http(HTTPMethod(rawValue: "A B"), at: "/a") { $0.respond() }
        },
        Fault("http CONNECT at \"/a\": expected a method that has a path, got CONNECT") { $0.http(.connect, at: "/a") { $0.respond() } },
        Fault("webSocket a b at \"/\": expected a token as the subprotocol's name (RFC 6455 §4.1)") {
            $0.webSocket("a b", at: "/") { _ in Nothing() }
        },
        Fault("webSocket echo at \"echo\": expected a path that begins with \"/\", got \"echo\"") {
            $0.webSocket("echo", at: "echo") { _ in Nothing() }
        },
        Fault("webSocket echo at \"/\": expected each subprotocol of a path once, got it twice") {
            for _ in 0..<2 { $0.webSocket("echo", at: "/") { _ in Nothing() } }
        },
        Fault("webSocket p64 at \"/64\": expected at most 64 protocols, got 65") {
            for index in 0..<65 { $0.webSocket("p\(index)", at: "/\(index)") { _ in Nothing() } }
        },
        Fault(
            "files at \"/x/*\": expected a path, got a pattern; files(at:in:) serves all that is below a path; http GET at \"b\": expected a path that begins with \"/\", got \"b\""
        ) {
            $0.files(at: "/x/*", in: "/")
            $0.http(.get, at: "b") { $0.respond() }
        },
    ]

    @Test("are a configuration error that names them, of whatever starts the server", arguments: faults)
    func refused(fault: Fault) {
        var server = Server()
        server.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        server.listen(on: .tcp("127.0.0.1", port: 0))
        fault.add(&server)
        let error = ConfigurationError.routes(fault.reason)
        #expect(throws: error) { try server.validate() }
        #expect(throws: error) { try server.run() }
        #expect(throws: error) { _ = try Worker(server) }
    }

    @Test("64 protocols, and one path with several methods, files and a WebSocket, are fine")
    func accepted() throws {
        var server = Server()
        for index in 0..<64 { server.webSocket("p\(index)", at: "/\(index / 2)") { _ in Nothing() } }
        for method in [HTTPMethod.get, .head, .post, HTTPMethod(rawValue: "PROPFIND")] { server.http(method, at: "/0") { $0.respond() } }
        server.files(at: "0", in: "/")
        try server.validate()
    }
}
