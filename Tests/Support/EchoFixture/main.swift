// Echoes, as a server or as a client, on one loop in this process:
//
//   EchoFixture serve NAME=VALUE ...             echoes, and answers `GET /route`; prints its port. Without
//                                                settings, or with `certificate` and `key` for TLS, the
//                                                instruction budgets are measured on it; `Settings` has the
//                                                others
//   EchoFixture ask PORT ...                     has each of these servers echo compressed messages
//   EchoFixture autobahn [no-takeover] URL       runs the cases of an Autobahn fuzzing server
//   EchoFixture idle PORT SOURCE COUNT           holds idle WebSockets
import Apus
import Glibc

final class Echo: WebSocketHandler {
    func received(_ message: Message, on socket: WebSocket) { socket.send(message) }
}

func serve(_ settings: Settings) throws {
    var server = Server()
    server.listen(on: .tcp("127.0.0.1", port: 0), tls: settings.tls)
    server.webSocket("echo", at: "/") { _ in Echo() }
    server.http(.get, at: "/route") { $0.respond(text: "Hello") }
    if let compression = settings.compression { server.extensions = [compression] }
    settings.apply(to: &server.limits)
    let worker = try Worker(server)
    print(worker.addresses[0].port ?? 0)
    fflush(nil)
    try worker.run()
}

let arguments = CommandLine.arguments.dropFirst(2)
switch CommandLine.arguments.dropFirst().first {
case "serve": try serve(Settings(arguments))
case "ask": try CompressedEchoes.ask(arguments.compactMap { UInt16($0) })
case "autobahn": try Autobahn.run(Array(arguments))
case "idle": try IdleClients.hold(arguments.compactMap { Int($0) })
default:
    print("usage: EchoFixture serve NAME=VALUE ... | ask PORT ... | autobahn [no-takeover] URL | idle PORT SOURCE COUNT")
    exit(64)
}
