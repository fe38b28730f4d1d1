import Apus
import ApusPlatform
import Logging
import TestSupport
import Testing

/// What is logged, for those who look.
private final class Notes: @unchecked Sendable {
    var lines: [String] = []
}

private struct NotingHandler: LogHandler {
    let notes: Notes
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.warning
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) { notes.lines.append("\(event.message)") }
}

@Suite("What one worker holds for all its connections")
struct WorkerBufferTests {
    private static let limit = 1 << 20

    private static func stage(_ script: RecordingHandler, _ notes: Notes = Notes()) throws -> TestServer {
        try TestServer { server in
            server.logger = Logger(label: "test") { _ in NotingHandler(notes: notes) }
            server.limits.maxWorkerBufferBytes = limit
            server.limits.maxMessageBytes = 400_000
            server.limits.maxBufferedBytes = 400_000
            server.limits.maxRequestBodyBytes = 400_000
            server.webSocket("chat", at: "/") { _ in script }
            server.http(.post, at: "/") { $0.respond(text: "thanks") }
        }
    }

    /// Clients, each with half a message, of which the last was refused.
    private static func fill(_ stage: TestServer, _ notes: Notes) throws -> [Client] {
        let half = Client.frame(.binary, [UInt8](repeating: 7, count: 300_000)).dropLast(150_000)
        var clients: [Client] = []
        while notes.lines.isEmpty {
            guard clients.count < 20 else { throw TimedOut(description: "\(clients.count) clients hold more than the limit") }
            let client = try stage.webSocket()
            clients.append(client)
            client.send(Array(half))
            try stage.settle()
        }
        return clients
    }

    @Test("who begins a message too many is closed with 1013, the others go on, and there is room again when they are done")
    func messages() throws {
        let notes = Notes()
        let stage = try Self.stage(RecordingHandler.echo(), notes)
        var clients = try Self.fill(stage, notes)
        #expect((4...7).contains(clients.count), "each holds what has come, and at most what it has announced")
        let refused = clients.removeLast()
        #expect(try refused.frame() == .close(1013, "the server has no memory for more"))
        #expect(notes.lines.count == 1 && notes.lines[0].contains("maxWorkerBufferBytes is \(Self.limit)"), "\(notes.lines)")
        // What comes whole needs no memory.
        let small = try stage.webSocket()
        small.send(.text, "whole")
        #expect(try small.frame() == .text("whole"))
        // Nor does memory that is set aside already.
        for client in clients.prefix(3) {
            client.send(Array(Client.frame(.binary, [UInt8](repeating: 7, count: 300_000)).suffix(150_000)))
            #expect(try client.frame().payload.count == 300_000)
        }
        let late = try stage.webSocket()
        late.send(Client.frame(.binary, [UInt8](repeating: 1, count: 400_000)))
        #expect(try late.frame().payload.count == 400_000)
        #expect(notes.lines.count == 1, "a spell is logged once")
    }

    @Test("connections that end, however they do, give back what they held")
    func endings() throws {
        let notes = Notes()
        let stage = try Self.stage(RecordingHandler.echo(), notes)
        for (index, client) in try Self.fill(stage, notes).enumerated() {
            if index % 2 == 0 { client.reset() } else { client.close() }
        }
        try stage.until("all gone") { stage.worker.connectionCount == 0 }
        for _ in 0..<10 {
            let client = try stage.webSocket()
            client.send(Client.frame(.binary, [UInt8](repeating: 1, count: 400_000)))
            #expect(try client.frame().payload.count == 400_000)
        }
    }

    @Test("who does not read is sent one message beyond the limit, then closed with 1013; who reads is served")
    func output() throws {
        let notes = Notes()
        let script = RecordingHandler()
        let stage = try Self.stage(script, notes)
        var sockets: [WebSocket] = []
        var clients: [Client] = []
        for _ in 0..<12 {
            clients.append(try stage.webSocket(receiveBufferBytes: 4096))
            sockets.append(try #require(script.socket))
        }
        // More than the kernel takes, less than one connection may have.
        for _ in 0..<40 where notes.lines.isEmpty {
            for socket in sockets where socket.bufferedBytes < 300_000 {
                socket.send(binary: [UInt8](repeating: 3, count: 90_000))
            }
            try stage.turn()
        }
        #expect(notes.lines.count == 1, "\(notes.lines)")
        for socket in sockets where socket.bufferedBytes > 0 { #expect(socket.send(text: "more") == .closed) }
        let held = sockets.reduce(0) { $0 + $1.bufferedBytes }
        #expect(held <= Self.limit + 400_000 + sockets.count * 90_000, "\(held)")
        let reader = try stage.webSocket()
        let readerSocket = try #require(script.socket)
        // Outside its own event, what is sent is queued, twice here: that is not yet slow.
        for text in ["still here", "and more"] { #expect(readerSocket.send(text: text) == .accepted) }
        for text in ["still here", "and more"] { #expect(try reader.frame() == .text(text)) }
        var ends: Set<UInt16> = []
        for client in clients {
            for frame in try client.framesToClose() where frame.opcode == 8 && frame.payload.count >= 2 {
                ends.insert(UInt16(frame.payload[0]) << 8 | UInt16(frame.payload[1]))
            }
            if ends == [1013] { break }
        }
        #expect(ends == [1013])
    }

    @Test("who waits for room hears of it, though memory is short and what waited has left with a message")
    func writable() throws {
        let notes = Notes()
        let script = RecordingHandler()
        let stage = try Self.stage(script, notes)
        let reader = try stage.webSocket(receiveBufferBytes: 4096)
        let socket = try #require(script.socket)
        var sent = 0
        while socket.bufferedBytes == 0 {
            socket.send(binary: [UInt8](repeating: 3, count: 20_000))
            sent += 20_004
            try stage.turn()
        }
        socket.requestWritable()
        // Others take all there is, and those who do not read a message more each: so much that what waits here makes no difference.
        var others = try Self.fill(stage, notes)
        var (excess, slow) = (0, 0)
        while excess < 60_000, slow < 30 {
            others.append(try stage.webSocket(receiveBufferBytes: 4096))
            slow += 1
            let other = try #require(script.socket)
            while other.send(binary: [UInt8](repeating: 3, count: 390_000)) != .closed {
                excess = slow > 1 ? other.bufferedBytes : 0
                try stage.turn()
            }
        }
        #expect(excess >= 60_000)
        #expect(script.count("writable") == 0)
        // All that the kernel has is read, which the loop has not been told yet.
        let wanted = sent - socket.bufferedBytes
        var got = 0
        let isRead = Deadline(after: .seconds(10)).wait {
            got += reader.takeSome(1 << 20).count
            return got >= wanted
        }
        #expect(isRead, "\(got) bytes of \(wanted)")
        #expect(socket.send(text: "there is room") == .accepted)
        try stage.until("writable") { script.count("writable") == 1 }
        for client in others { client.reset() }
    }

    @Test("a request whose body does not fit is answered with 503")
    func bodies() throws {
        let notes = Notes()
        let stage = try Self.stage(RecordingHandler.echo(), notes)
        let clients = try Self.fill(stage, notes)
        let poster = try stage.client()
        poster.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + String(repeating: "x", count: 300_000))
        #expect(try poster.response().status == 503)
        for client in clients { client.reset() }
        try stage.until("all gone") { stage.worker.connectionCount <= 1 }
        let again = try stage.client()
        again.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + String(repeating: "x", count: 300_000))
        #expect(try again.response().status == 200)
    }
}
