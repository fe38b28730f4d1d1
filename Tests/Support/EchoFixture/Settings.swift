import Apus

/// Words of the command line, `NAME=VALUE`.
struct Settings {
    private let values: [String: String]

    init(_ words: some Sequence<String>) {
        values = Dictionary(
            words.compactMap { word in
                let parts = word.split(separator: "=", maxSplits: 1)
                return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
            }, uniquingKeysWith: { $1 })
    }

    private func number(_ name: String) -> Int? { values[name].flatMap { Int($0) } }

    /// `certificate` and `key`: files.
    var tls: ServerTLS? {
        guard let certificate = values["certificate"], let key = values["key"] else { return nil }
        return ServerTLS(TLSIdentity(certificateChain: certificate, privateKey: key))
    }

    /// With `deflate=1`: permessage-deflate, for messages of any length. `server-takeover` and
    /// `client-takeover` are 1 or 0, `server-bits`, `client-bits` and `memory-level` as for zlib.
    var compression: PerMessageDeflate? {
        guard number("deflate") == 1 else { return nil }
        var configuration = PerMessageDeflate.Configuration()
        configuration.threshold = 0
        if number("server-takeover") == 1 { configuration.serverContextTakeover = .allowed }
        if number("client-takeover") == 1 { configuration.clientContextTakeover = .allowed }
        if let bits = number("server-bits") { configuration.serverMaxWindowBits = bits }
        if let bits = number("client-bits") { configuration.clientMaxWindowBits = bits }
        if let level = number("memory-level") { configuration.memoryLevel = level }
        return PerMessageDeflate(configuration)
    }

    /// `silence` and `progress`: milliseconds.
    func apply(to limits: inout Limits) {
        if let milliseconds = number("silence") {
            limits.silenceTimeout = .milliseconds(milliseconds)
            limits.pingInterval = .milliseconds(milliseconds / 2)
        }
        if let milliseconds = number("progress") { limits.messageProgressTimeout = .milliseconds(milliseconds) }
    }
}
