// Runs the cases of an Autobahn fuzzing server, echoing what each sends: AutobahnClient [no-takeover] ws://HOST:PORT
// It offers permessage-deflate with context takeover, or without: some cases want to be told that the client does without.
import Apus

/// One connection: the server's case, or a question.
final class Run: WebSocketHandler {
    private let echoes: Bool
    private(set) var answer: String?
    var isOver = false

    init(echoes: Bool) { self.echoes = echoes }

    func received(_ message: Message, on socket: WebSocket) {
        if echoes { socket.send(message) } else { answer = message.text }
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) { isOver = true }
}

/// Asks the fuzzing server and runs its cases, one after the other.
struct Driver {
    private let context: Context
    private var options = ClientOptions()
    private let url: String

    init(_ url: String, takesOver: Bool) throws {
        self.url = url
        var server = Server()
        server.limits.maxMessageBytes = 64 << 20
        server.limits.maxBufferedBytes = 64 << 20
        context = try Context(server)
        var deflate = PerMessageDeflate.Configuration()
        deflate.serverContextTakeover = takesOver ? .allowed : .never
        deflate.clientContextTakeover = takesOver ? .allowed : .never
        deflate.threshold = 0
        options.extensions = [PerMessageDeflate(deflate)]
    }

    /// One connection up to its end; gives the last text that came.
    @discardableResult
    func run(_ path: String, echoes: Bool) throws -> String? {
        let run = Run(echoes: echoes)
        context.connect(to: url + path, options: options) { _ in
            run
        } failed: { error in
            print("\(path): \(error)")
            run.isOver = true
        }
        while !run.isOver { try context.service() }
        return run.answer
    }
}

guard let url = CommandLine.arguments.dropFirst().last else { fatalError("usage: AutobahnClient [no-takeover] ws://HOST:PORT") }
let driver = try Driver(url, takesOver: !CommandLine.arguments.contains("no-takeover"))
guard let count = try driver.run("/getCaseCount", echoes: false).flatMap({ Int($0) }) else {
    fatalError("the server does not say how many cases it has")
}
for number in 1...count { try driver.run("/runCase?case=\(number)&agent=apus", echoes: true) }
try driver.run("/updateReports?agent=apus", echoes: false)
print("\(count) cases run")
