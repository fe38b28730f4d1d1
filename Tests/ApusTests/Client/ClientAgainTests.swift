import Apus
import ApusCodec
import Testing

@Suite("Clients that are led elsewhere, and clients that come again")
struct ClientAgainTests {
    private static func redirect(_ peer: Client, to location: String, status: Int = 302) throws -> String {
        let head = try peer.requestHead()
        peer.send("HTTP/1.1 \(status) Elsewhere\r\nLocation: \(location)\r\nContent-Length: 0\r\n\r\n")
        return head
    }

    @Test("followed with leave; what was meant for one origin is not told another", arguments: [301, 302, 303, 307, 308])
    func followed(status: Int) throws {
        let stage = try TestServer(RecordingHandler())
        let (first, second) = (try RawServer(stage), try RawServer(stage))
        let headers = try HTTPFields(["Authorization": "Bearer x", "Cookie": "a=b", "X-Mine": "y"])
        let attempt = Attempt(stage, first.url + "a/b", headers: headers, origin: "https://page.test") { $0.maxRedirects = 2 }
        #expect(try Self.redirect(try first.accept(), to: "../c?d", status: status).contains("Bearer x"))
        let same = try first.accept()
        let again = try Self.redirect(same, to: "http://127.0.0.1:\(second.port)/e", status: status)
        #expect(again.hasPrefix("GET /c?d ") && again.contains("Bearer x") && again.contains("Origin: "))
        let peer = try second.accept()
        let head = try peer.requestHead()
        #expect(head.hasPrefix("GET /e ") && head.contains("X-Mine: y"))
        for secret in ["Bearer", "a=b", "Origin"] { #expect(!head.contains(secret)) }
        try peer.acceptWebSocket(head)
        _ = try attempt.opened()
    }

    @Test(
        "not followed: over the limit, nowhere, to plain, to a local socket",
        arguments: [
            ("/again", "limit"), ("ftp://x/", "scheme"), ("ws+unix:///run/x", "local socket"), ("http://[", "bracket"),
        ])
    func refused(location: String, words: String) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url) { $0.maxRedirects = 1 }
        _ = try Self.redirect(try server.accept(), to: location)
        if location == "/again" { _ = try Self.redirect(try server.accept(), to: location) }
        let error = try attempt.failure()
        guard case .redirect(_, let head) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(error.description.contains(words) && head.status.code == 302, "\(error)")
        #expect(server.isIdle)
    }

    // MARK: Again

    private static func soon(_ options: inout ClientOptions) {
        var policy = ReconnectPolicy()
        policy.baseDelay = .milliseconds(2)
        policy.maxDelay = .milliseconds(8)
        policy.restartDelay = .milliseconds(1)...(.milliseconds(5))
        options.reconnect = policy
    }

    @Test("a server that leaves is connected to again, with a handler of its own", arguments: [1001, 1006, 1011, 1012, 1013])
    func again(code: UInt16) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        var pauses: [Duration] = []
        let attempt = Attempt(stage, server.url) {
            Self.soon(&$0)
            $0.onRetry = { error, pause in
                #expect(error == nil)
                pauses.append(pause)
            }
        }
        for round in 1...3 {
            let peer = try server.accept()
            try peer.acceptWebSocket(try peer.requestHead())
            try stage.until("opened") { attempt.script.count("opened") == round }
            if code != 1006 { peer.send(Client.serverFrame(.close, [UInt8(code >> 8), UInt8(code & 0xFF)])) } else { peer.reset() }
            try stage.until("closed") { attempt.script.endings.count == round }
            peer.close()
        }
        let last = try server.accept()
        #expect(pauses.count == 3 && attempt.errors.isEmpty)
        attempt.connection?.cancel()
        try stage.until("the end") { attempt.errors.count == 1 }
        #expect(attempt.script.endings == Array(repeating: "closed \(code)", count: 3))
        _ = last
    }

    @Test("not again: closed by this side, or for good by the server", arguments: [0, 1000, 1002, 1008, 4000])
    func forGood(code: UInt16) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        let attempt = Attempt(stage, server.url) { Self.soon(&$0) }
        let peer = try server.accept()
        try peer.acceptWebSocket(try peer.requestHead())
        let socket = try attempt.opened()
        if code == 0 { socket.terminate() } else { peer.send(Client.serverFrame(.close, [UInt8(code >> 8), UInt8(code & 0xFF)])) }
        try stage.until("closed") { attempt.script.endings.count == 1 }
        #expect(attempt.connection?.isOver == true)
        peer.close()
        try stage.serve(for: .milliseconds(50))
        #expect(server.isIdle && attempt.errors.isEmpty)
    }

    @Test("attempts that fail are repeated, each told, and given up after so many")
    func failures() throws {
        let stage = try TestServer(RecordingHandler())
        let port = try RawServer(stage).port
        var told: [ConnectError] = []
        let attempt = Attempt(stage, "ws://127.0.0.1:\(port)/") {
            Self.soon(&$0)
            $0.reconnect?.maxAttempts = 4
            $0.onRetry = { error, _ in if let error { told.append(error) } }
        }
        guard case .connect = try attempt.failure() else {
            Issue.record("\(attempt.errors)")
            return
        }
        #expect(told.count == 3)
    }

    @Test(
        "Retry-After of 503 is kept; 404 ends it at once",
        arguments: ["Retry-After: 1", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", "404"])
    func retryAfter(field: String) throws {
        let stage = try TestServer(RecordingHandler())
        let server = try RawServer(stage)
        var pauses: [Duration] = []
        let attempt = Attempt(stage, server.url) {
            Self.soon(&$0)
            $0.onRetry = { pauses.append($1) }
        }
        let peer = try server.accept()
        _ = try peer.requestHead()
        peer.send(field == "404" ? "HTTP/1.1 404 No\r\n\r\n" : "HTTP/1.1 503 Busy\r\n\(field)\r\n\r\n")
        if field == "404" {
            _ = try attempt.failure()
            #expect(pauses.isEmpty)
            return
        }
        try stage.until("the pause") { pauses.count == 1 }
        #expect(field.hasSuffix("1") ? pauses[0] == .seconds(1) : pauses[0] <= .milliseconds(2), "\(pauses)")
        attempt.connection?.cancel()
        guard case .cancelled = try attempt.failure() else {
            Issue.record("\(attempt.errors)")
            return
        }
    }
}
