import Apus

/// Words of the command line, `name=value`: what permessage-deflate and the limits are set to.
struct Settings {
    private let values: [String: Int]

    init(_ words: some Sequence<String>) {
        values = Dictionary(
            words.compactMap { word in
                let parts = word.split(separator: "=")
                return parts.count == 2 ? Int(parts[1]).map { (String(parts[0]), $0) } : nil
            }, uniquingKeysWith: { $1 })
    }

    /// Nil when the words say `deflate=0`.
    var compression: PerMessageDeflate? {
        if values["deflate"] == 0 { return nil }
        var configuration = PerMessageDeflate.Configuration()
        configuration.threshold = 0
        if values["server-takeover"] == 1 { configuration.serverContextTakeover = .allowed }
        if values["client-takeover"] == 1 { configuration.clientContextTakeover = .allowed }
        if let bits = values["server-bits"] { configuration.serverMaxWindowBits = bits }
        if let bits = values["client-bits"] { configuration.clientMaxWindowBits = bits }
        if let level = values["memory-level"] { configuration.memoryLevel = level }
        return PerMessageDeflate(configuration)
    }

    func apply(to limits: inout Limits) {
        if let milliseconds = values["silence"] {
            limits.silenceTimeout = .milliseconds(milliseconds)
            limits.pingInterval = .milliseconds(milliseconds / 2)
        }
        if let milliseconds = values["progress"] { limits.messageProgressTimeout = .milliseconds(milliseconds) }
    }
}

/// Sends back what it gets.
final class Echo: WebSocketHandler {
    func received(_ message: Message, on socket: WebSocket) { socket.send(message) }
}

/// Sends messages of many sizes, each when the last one has come back, and closes.
final class Questioner: WebSocketHandler {
    private static let sizes = [0, 1, 40, 125, 126, 1000, 1000, 65_535, 65_536, 200_000]
    private var asked = 0
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
