import Apus
import ArgumentParser

/// The arguments of `apus connect` and `apus ping` about the way to a server.
struct ClientArguments: ParsableArguments {
    @Argument(help: "The server: ws://HOST[:PORT]/PATH, wss://…, or ws+unix:///PATH/OF/SOCKET:/PATH.")
    var url: String

    @Option(name: [.customShort("H"), .long], help: ArgumentHelp("A field of the request; repeatable.", valueName: "name: value"))
    var header: [String] = []

    @Option(name: .long, help: ArgumentHelp("A subprotocol to request; repeatable, in order of preference.", valueName: "name"))
    var subprotocol: [String] = []

    @Option(name: .long, help: ArgumentHelp("The value of Origin.", valueName: "origin"))
    var origin: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "A proxy: [http://][USER:PASSWORD@]HOST[:PORT], socks5://…, or none. Without it http_proxy, https_proxy and no_proxy are used.",
            valueName: "proxy"))
    var proxy: String?

    @OptionGroup var tls: TLSArguments

    @Option(name: .long, help: ArgumentHelp("The number of redirections to follow.", valueName: "n"))
    var maxRedirects = 0

    @Option(name: .long, help: ArgumentHelp("Seconds allowed for each stage of connecting.", valueName: "seconds"))
    var connectTimeout: Double?

    func validate() throws {
        try Bench.checkAddress(url)
        _ = try headers()
        _ = try clientOptions()
    }

    /// The fields of `-H`, and the value given for Host.
    private func fields() throws -> (fields: HTTPFields, host: String?) {
        var fields = HTTPFields()
        var host: String?
        for text in header {
            guard let colon = text.firstIndex(of: ":") else { throw ValidationError("-H \(text.debugDescription): expected NAME: VALUE") }
            if text[..<colon].lowercased() == "host" {
                guard host == nil else { throw ValidationError("-H \(text.debugDescription): expected one Host, got two") }
                host = String(text[text.index(after: colon)...].drop { $0 == " " })
                continue
            }
            if let advice = Self.advice(on: text[..<colon].lowercased()) {
                throw ValidationError("-H \(text.debugDescription): apus writes this field itself: \(advice)")
            }
            do {
                try fields.append(String(text[..<colon]), String(text[text.index(after: colon)...]))
            } catch {
                throw ValidationError("-H \(text.debugDescription): \(error)")
            }
        }
        return (fields, host)
    }

    func headers() throws -> HTTPFields { try fields().fields }

    /// What to do instead of giving a field of this name; nil if it may be given.
    private static func advice(on name: String) -> String? {
        switch name {
        case "sec-websocket-protocol": "use --subprotocol NAME"
        case "sec-websocket-extensions": "use --deflate"
        case "connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "content-length", "transfer-encoding":
            "its value is fixed (RFC 6455 §4.1)"
        default: nil
        }
    }

    func clientOptions() throws -> ClientOptions {
        var options = ClientOptions()
        guard (0...100).contains(maxRedirects) else { throw ValidationError("--max-redirects: expected 0 to 100, got \(maxRedirects)") }
        options.maxRedirects = maxRedirects
        options.tls = try tls.clientTLS()
        options.host = try fields().host
        if let proxy {
            do {
                options.proxy = proxy == "none" ? ProxyChoice.none : .through(try Proxy(parsing: proxy))
            } catch {
                throw ValidationError("--proxy: \(error)")
            }
        }
        if let connectTimeout {
            guard connectTimeout > 0, connectTimeout <= 86_400 else {
                throw ValidationError("--connect-timeout: expected more than 0 and at most 86400 seconds, got \(connectTimeout)")
            }
            let duration = Duration.seconds(connectTimeout)
            options.timeouts.name = duration
            options.timeouts.connect = duration
            options.timeouts.proxy = duration
            options.timeouts.tls = duration
            options.timeouts.answer = duration
        }
        return options
    }
}

/// How a client verifies servers, and its own certificate.
struct TLSArguments: ParsableArguments {
    @Option(name: .long, help: ArgumentHelp("Trust the authorities in this PEM file instead of the system's.", valueName: "file"))
    var ca: String?

    @Option(
        name: .long, help: ArgumentHelp("A PEM file with the certificate chain to present if the server requests it.", valueName: "file"))
    var certificate: String?

    @Option(name: .long, help: ArgumentHelp("A PEM file with its private key.", valueName: "file"))
    var key: String?

    @Option(name: .long, help: ArgumentHelp("The server name to request and verify, instead of the address's host.", valueName: "name"))
    var serverName: String?

    @Flag(name: .long, help: "Accept a self-signed certificate, if it is valid for the name.")
    var allowSelfSigned = false

    @Flag(name: .long, help: "Do not verify the server: the connection is open to interception.")
    var insecure = false

    func clientTLS() throws -> ClientTLS {
        var tls = ClientTLS()
        if let ca { tls.roots = .file(ca) }
        guard (certificate == nil) == (key == nil) else {
            throw ValidationError("--certificate, --key: expected both or none, got one of them")
        }
        if let certificate, let key { tls.identity = TLSIdentity(certificateChain: certificate, privateKey: key) }
        guard !(allowSelfSigned && insecure) else {
            throw ValidationError("--allow-self-signed, --insecure: expected one of them, got both")
        }
        if allowSelfSigned { tls.verification = .allowingSelfSigned }
        if insecure { tls.verification = .none }
        tls.serverName = serverName
        return tls
    }
}

/// The exit statuses of the client commands.
enum ClientExit {
    /// 0 for a normal close: by this side, or with 1000, 1001 or no code. Otherwise 100 plus the
    /// code's last two digits for 1002 to 1015, 120 for 3000 to 3999, 121 for 4000 to 4999.
    static func status(_ code: CloseCode) -> Int32 {
        switch code.rawValue {
        case 1000, 1001, 1005: 0
        case 1002...1099: 100 + Int32(code.rawValue - 1000)
        case 3000...3999: 120
        default: 121
        }
    }

    /// For a connection that was never open, following sysexits.h.
    static func status(_ error: ConnectError) -> Int32 {
        switch error {
        case .address, .request: 64
        case .name: 68
        case .connect, .closed, .workerEnding, .cancelled: 69
        case .timeout: 75
        case .proxy, .malformedAnswer, .handshake, .extensions, .redirect, .body, .refused: 76
        case .tls, .certificate: 77
        }
    }
}
