import Apus
import ArgumentParser
import Glibc

/// `apus connect`: lines in, messages out.
struct Connect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Connect to a WebSocket server: lines of standard input are sent, messages are written to standard output.",
        discussion: """
            Each line is a text message; with --binary each chunk that is read is a binary one. Text that comes is written with a line end behind \
            it; binary messages are written as they are, and in hexadecimal on a terminal.
            When the input ends, what comes is still written until there is silence for --wait seconds, or until --count messages have come. \
            On a terminal, Ctrl-D closes at once.
            Exit status: 0 if it was closed by this side, or with 1000, 1001 or no code; 102 to 115 for 1002 to 1015, 120 for 3000 to 3999, 121 \
            for 4000 to 4999. If it was never open: 68 the name cannot be resolved, 69 it cannot be connected, or the peer closed before it \
            had answered, 75 it took too long, 76 the answer is none that opens it, 77 TLS.
            """)

    @OptionGroup var arguments: ClientArguments

    @Option(
        name: .long, help: ArgumentHelp("Send a ping after so many seconds of silence; give up after twice as many.", valueName: "seconds"))
    var ping: Double?

    @Flag(name: .long, help: "Send and expect binary messages.")
    var binary = false

    @Option(name: .long, help: ArgumentHelp("Close when so many messages have come.", valueName: "n"))
    var count: Int?

    @Option(name: .long, help: ArgumentHelp("Seconds of silence to wait for when the input has ended.", valueName: "seconds"))
    var wait = 1.0

    @Flag(name: .long, help: "Connect again, with growing pauses, when the server cannot be reached or goes.")
    var reconnect = false

    @Flag(name: .long, help: "Offer permessage-deflate.")
    var deflate = false

    func validate() throws {
        if let ping { try Bench.check(ping > 0 && ping <= 86_400, "--ping", ping, "more than 0 and at most 86400 seconds") }
        if let count { try Bench.check(count > 0, "--count", count, "1 or more") }
        try Bench.check(wait >= 0 && wait <= 86_400, "--wait", wait, "0 to 86400 seconds")
    }

    func run() throws {
        var client = Server()
        client.limits.maxMessageBytes = 64 << 20
        client.limits.maxBufferedBytes = 64 << 20
        if let ping {
            client.limits.pingInterval = .seconds(ping)
            client.limits.silenceTimeout = .seconds(2 * ping)
        }
        var options = try arguments.clientOptions()
        if reconnect { options.reconnect = ReconnectPolicy() }
        if deflate {
            // One connection can afford contexts, and there are servers that lose the parameters that would keep them from it.
            var compression = PerMessageDeflate.Configuration()
            compression.serverContextTakeover = .allowed
            compression.clientContextTakeover = .allowed
            options.extensions = [PerMessageDeflate(compression)]
        }
        let session = try ConnectSession(self, try Context(client))
        throw ExitCode(try session.run(headers: arguments.headers(), options: options))
    }
}

/// A run of `apus connect`.
private final class ConnectSession: WebSocketHandler {
    private let command: Connect
    private let context: Context
    private let terminal = Terminal()
    private let takesTerminal = isatty(0) == 1
    private var connection: ClientConnection?
    private var input: InputSource?
    /// The begin of a line whose end has not been read.
    private var line: [UInt8] = []
    private var messages = 0
    private var inputHasEnded = false
    /// What was read while there was no connection, so that its end is not missed.
    private var held: [[UInt8]] = []
    private var heldBytes = 0
    private var hasBeenOpen = false
    /// How the last connection ended.
    private var lastEnd = ""
    private var silence: DeadlineTimer?
    private var status: Int32?
    /// This side has closed: the peer's code does not count.
    private var isClosing = false

    /// Bytes of a line; nothing else bounds what an input without line ends would take.
    private static let maxLineBytes = 64 << 20
    /// Bytes read before there is a connection.
    private static let maxHeldBytes = 1 << 20
    /// Bytes of a binary message shown on a terminal.
    private static let shownBytes = 1024

    init(_ command: Connect, _ context: Context) throws {
        self.command = command
        self.context = context
    }

    /// Gives the exit status.
    func run(headers: HTTPFields, options: ClientOptions) throws -> Int32 {
        var options = options
        options.whenRetrying = { [terminal, unowned self] error, pause in
            let reason = error.map { "\($0)" } ?? lastEnd
            terminal.note("\(reason); again in \(Decimal.text(pause / .seconds(1), places: 1)) s", .red)
        }
        input = InputSource(0, in: context) { [unowned self] bytes in read(bytes) }
        input?.resume()
        let interrupts = try InterruptSource(in: context) { [unowned self] in close() }
        let arguments = command.arguments
        connection = context.connect(
            to: arguments.url, subprotocols: arguments.subprotocol, headers: headers, origin: arguments.origin, options: options,
            makeHandler: { [unowned self] _ in self },
            failed: { [unowned self] error in
                terminal.note("\(error)", .red)
                status = ClientExit.status(error)
            })
        while status == nil { try context.service() }
        withExtendedLifetime(interrupts) {}
        return status ?? 0
    }

    // MARK: Input

    private func read(_ bytes: [UInt8]) {
        guard connection?.socket != nil else { return hold(bytes) }
        if bytes.isEmpty {
            inputHasEnded = true
            return inputEnded()
        }
        if command.binary { return send(bytes, as: .binary) }
        var rest = bytes[...]
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            line += rest[..<end]
            rest = rest[(end + 1)...]
            send(take(&line), as: .text)
        }
        line += rest
        if line.count > Self.maxLineBytes { fail("a line of more than \(Self.maxLineBytes) bytes") }
    }

    /// There is no connection now.
    private func hold(_ bytes: [UInt8]) {
        if bytes.isEmpty {
            inputHasEnded = true
            // Who has nothing more to say, and would only wait for silence, has it.
            if takesTerminal || hasBeenOpen && held.isEmpty && line.isEmpty && command.count == nil { close() }
            return
        }
        held.append(bytes)
        heldBytes += bytes.count
        if heldBytes >= Self.maxHeldBytes { input?.pause() }
    }

    private func take(_ line: inout [UInt8]) -> [UInt8] {
        defer { line = [] }
        return line
    }

    private func send(_ bytes: [UInt8], as kind: MessageKind) {
        if kind == .text, String(validating: bytes, as: UTF8.self) == nil { return fail("a line is not UTF-8: use --binary") }
        guard let socket = connection?.socket else { return }
        if case .buffered = socket.send(bytes, as: kind) {
            input?.pause()
            socket.requestWritable()
        }
    }

    private func inputEnded() {
        if !line.isEmpty { send(take(&line), as: .text) }
        if takesTerminal { return close() }
        if command.count == nil { waitForSilence() }
    }

    private func waitForSilence() {
        silence?.cancel()
        silence = context.schedule(after: .seconds(command.wait)) { [unowned self] in close() }
    }

    private func fail(_ reason: String, _ value: Int32 = 65) {
        guard status == nil else { return }
        terminal.note(reason, .red)
        status = value
        connection?.cancel()
    }

    private func close() {
        isClosing = true
        input?.cancel()
        connection?.cancel()
    }

    // MARK: The connection

    func opened(_ socket: WebSocket) {
        if terminal.isTerminal { terminal.note("connected" + (socket.subprotocol.map { ", subprotocol \($0)" } ?? ""), .green) }
        hasBeenOpen = true
        input?.resume()
        let chunks = held
        (held, heldBytes) = ([], 0)
        for chunk in chunks { read(chunk) }
        if inputHasEnded { inputEnded() }
    }

    func writable(_ socket: WebSocket) { input?.resume() }

    func received(_ message: Message, on socket: WebSocket) {
        switch show(message) {
        case .written: break
        case .readerHasGone: return close()
        case .failed(let reason):
            let failure = ApusCommand.unwritable(reason)
            return fail(failure.description, failure.status)
        }
        messages += 1
        if messages == command.count { return close() }
        if silence != nil, !isClosing { waitForSilence() }
    }

    private func show(_ message: Message) -> StandardStreams.Outcome {
        if let text = message.text { return terminal.write(line: text, .blue) }
        guard terminal.isTerminal else { return terminal.write(message.bytes) }
        let digits = message.bytes.prefix(Self.shownBytes).map { Decimal.hexadecimal($0) }.joined(separator: " ")
        let isCut = message.payload.byteCount > Self.shownBytes
        return terminal.write(line: "binary, \(message.payload.byteCount) bytes: \(digits)\(isCut ? " …" : "")", .blue)
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        silence?.cancel()
        silence = nil
        if isClosing { return end(0) }
        let words = reason.isEmpty && code == .abnormal ? "the connection was lost without a close frame" : reason
        lastEnd = "closed with \(code.rawValue)" + (words.isEmpty ? "" : " \(words)")
        guard command.reconnect else { return leave(code) }
        // Whether it is opened again is known when this returns.
        context.schedule(after: .zero) { [unowned self] in
            if connection?.isOver == true { return leave(code) }
            // Its end ends this, too.
            input?.resume()
        }
    }

    /// The connection has ended, for good.
    private func leave(_ code: CloseCode) {
        if terminal.isTerminal || ClientExit.status(code) != 0 { terminal.note(lastEnd, .red) }
        end(ClientExit.status(code))
    }

    private func end(_ value: Int32) {
        input?.cancel()
        if status == nil { status = value }
    }
}
