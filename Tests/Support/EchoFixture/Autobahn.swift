import Apus

/// The cases of an Autobahn fuzzing server, one after the other: what each sends is echoed.
struct Autobahn {
    private let worker: Worker
    private var options = ClientOptions()
    private let url: String

    /// - Parameter arguments: the server's URL. `no-takeover` before it offers permessage-deflate
    ///   without context takeover, which some cases require; else the offer allows it.
    static func run(_ arguments: [String]) throws {
        guard let url = arguments.last else { fatalError("usage: EchoFixture autobahn [no-takeover] ws://HOST:PORT") }
        let server = try Autobahn(url, takesOver: !arguments.contains("no-takeover"))
        guard let count = try server.connect("/getCaseCount", echoes: false).flatMap({ Int($0) }) else {
            fatalError("expected the number of cases as the answer to /getCaseCount")
        }
        for number in 1...count { try server.connect("/runCase?case=\(number)&agent=apus", echoes: true) }
        try server.connect("/updateReports?agent=apus", echoes: false)
        print("\(count) cases run")
    }

    private init(_ url: String, takesOver: Bool) throws {
        self.url = url
        var server = Server()
        server.limits.maxMessageBytes = 64 << 20
        server.limits.maxBufferedBytes = 64 << 20
        worker = try Worker(server)
        var deflate = PerMessageDeflate.Configuration()
        deflate.serverContextTakeover = takesOver ? .allowed : .never
        deflate.clientContextTakeover = takesOver ? .allowed : .never
        deflate.threshold = 0
        options.extensions = [PerMessageDeflate(deflate)]
    }

    /// Serves one connection up to its end.
    ///
    /// - Returns: The last text that came and was not echoed.
    @discardableResult
    private func connect(_ path: String, echoes: Bool) throws -> String? {
        let run = Run(echoes: echoes)
        worker.connect(to: url + path, options: options) { _ in
            run
        } failed: { error in
            print("\(path): \(error)")
            run.isOver = true
        }
        while !run.isOver { try worker.service() }
        return run.answer
    }

    /// One connection: a case, or a question to the server.
    private final class Run: WebSocketHandler {
        private let echoes: Bool
        private(set) var answer: String?
        var isOver = false

        init(echoes: Bool) { self.echoes = echoes }

        func received(_ message: Message, on socket: WebSocket) {
            if echoes { socket.send(message) } else { answer = message.text }
        }

        func closed(_ socket: WebSocket, code: CloseCode, reason: String) { isOver = true }
    }
}
