// swift-format-ignore-file
import Apus

final class Echo: WebSocketHandler {
    func received(_ message: Message, on socket: WebSocket) { socket.send(message) }
}

var server = Server()
server.listen(on: .tcp("127.0.0.1", port: 8080))
server.webSocket("echo", at: "/echo") { _ in Echo() }
server.files(at: "/", in: "public")
server.runAndExit()       // forks one worker per core, supervises them; ends after SIGTERM or SIGQUIT, or with a line that says why
