// `DeflateFixture serve NAME=VALUE ...` echoes on one loop, in this process, whose memory the tests look at; it prints its port.
// `DeflateFixture connect PORT ...` asks each of these servers with every combination of the client's parameters, and prints how many
// connections went well; its status is 1 at the first that does not.
import Apus
import ApusPlatform
import Glibc
import Logging

LoggingSystem.bootstrap { _ in SwiftLogNoOpLogHandler() }
let arguments = CommandLine.arguments.dropFirst()
switch arguments.first {
case "serve":
    let settings = Settings(arguments.dropFirst())
    var server = Server()
    server.listen(on: .tcp("127.0.0.1", port: 0))
    server.webSocket("echo", at: "/") { _ in Echo() }
    if let compression = settings.compression { server.extensions = [compression] }
    settings.apply(to: &server.limits)
    let context = try Context(server)
    print(context.addresses[0].port ?? 0)
    fflush(nil)
    try context.run()
case "connect":
    let context = try Context(Server())
    var count = 0
    for port in arguments.dropFirst().compactMap({ UInt16($0) }) {
        for combination in 0..<16 {
            let settings = Settings([
                "server-takeover=\(combination & 1)", "client-takeover=\(combination >> 1 & 1)",
                "server-bits=\(combination & 4 == 0 ? 15 : 9)",
                "client-bits=\(combination & 8 == 0 ? 15 : 10)",
            ])
            guard let compression = settings.compression else { exit(64) }
            var options = ClientOptions()
            options.extensions = [compression]
            let questioner = Questioner()
            var failure: String?
            context.connect(
                to: "ws://127.0.0.1:\(port)/", options: options, makeHandler: { _ in questioner }, failed: { failure = "\($0)" })
            while failure == nil, questioner.ending == nil { try context.service(timeout: .seconds(1)) }
            guard failure == nil, questioner.ending == "" else {
                print("port \(port), combination \(combination): \(failure ?? questioner.ending ?? "")")
                exit(1)
            }
            count += 1
        }
    }
    print("\(count) connections went well")
default:
    print("usage: DeflateFixture serve NAME=VALUE ... | connect PORT ...")
    exit(64)
}
