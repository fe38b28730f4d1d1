// One loop in this process, echoing, and answering `GET /route`: what the instruction budgets are measured on. With a certificate and a key as arguments, over TLS.
import Apus
import Glibc

final class Echo: WebSocketHandler {
    func received(_ message: Message, on socket: WebSocket) { socket.send(message) }
}

let files = CommandLine.arguments.dropFirst()
let tls = files.count == 2 ? ServerTLS(TLSIdentity(certificateChain: files[1], privateKey: files[2])) : nil
var server = Server()
server.listen(on: .tcp("127.0.0.1", port: 0), tls: tls)
server.webSocket("echo", at: "/") { _ in Echo() }
server.http(.get, at: "/route") { $0.respond(text: "Hello") }
let context = try Context(server)
print(context.addresses[0].port ?? 0)
fflush(nil)
try context.run()
