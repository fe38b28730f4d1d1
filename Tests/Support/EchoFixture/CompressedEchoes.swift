import Apus
import Glibc

/// Messages of many sizes that servers echo, with every combination of a client's parameters of
/// permessage-deflate.
enum CompressedEchoes {
    /// Prints how many connections succeeded; ends the process with 1 at the first that fails.
    static func ask(_ ports: [UInt16]) throws {
        let worker = try Worker(Server())
        var count = 0
        for port in ports {
            for combination in 0..<16 {
                let settings = Settings([
                    "deflate=1", "server-takeover=\(combination & 1)", "client-takeover=\(combination >> 1 & 1)",
                    "server-bits=\(combination & 4 == 0 ? 15 : 9)", "client-bits=\(combination & 8 == 0 ? 15 : 10)",
                ])
                var options = ClientOptions()
                options.extensions = settings.compression.map { [$0] } ?? []
                let questioner = Questioner()
                var failure: String?
                worker.connect(
                    to: "ws://127.0.0.1:\(port)/", options: options, makeHandler: { _ in questioner }, failed: { failure = "\($0)" })
                while failure == nil, questioner.ending == nil { try worker.service(timeout: .seconds(1)) }
                guard failure == nil, questioner.ending == "" else {
                    print("port \(port), combination \(combination): \(failure ?? questioner.ending ?? "")")
                    exit(1)
                }
                count += 1
            }
        }
        print("\(count) connections went well")
    }
}

/// Sends each message when the echo of the one before has come back, then closes.
private final class Questioner: WebSocketHandler {
    private static let sizes = [0, 1, 40, 125, 126, 1000, 1000, 65_535, 65_536, 200_000]
    private var asked = 0
    /// Empty if every echo was right.
    private(set) var ending: String?

    private var question: [UInt8] {
        // Half of it compresses well, and each resembles the one before.
        let size = Self.sizes[asked]
        return (0..<size).map {
            $0 % 64 < 32 ? 0x61 + UInt8($0 / 64 % 26) : UInt8(truncatingIfNeeded: ($0 / 64 &* 2_654_435_761) >> ($0 % 24))
        }
    }

    func opened(_ socket: WebSocket) { ask(socket) }

    private func ask(_ socket: WebSocket) {
        let question = question
        guard asked % 2 == 1 else {
            socket.send(binary: question)
            return
        }
        socket.sendFragment(binary: Array(question[..<(question.count / 2)]), isLast: false)
        socket.sendFragment(binary: Array(question[(question.count / 2)...]), isLast: true)
    }

    func received(_ message: Message, on socket: WebSocket) {
        guard message.bytes == question else { return socket.close(code: .internalError, reason: "message \(asked) came back changed") }
        asked += 1
        if asked == Self.sizes.count { socket.close() } else { ask(socket) }
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        ending = code == .normal && asked == Self.sizes.count ? "" : "closed \(code.rawValue) \(reason) after \(asked) answers"
    }
}
