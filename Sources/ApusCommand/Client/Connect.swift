import Apus
import ArgumentParser
import Glibc

/// `apus connect`: sends lines and prints messages.
struct Connect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Connect to a WebSocket server: lines of standard input are sent, messages are written to standard output.",
        discussion: """
            Each line is sent as a text message; with --binary each chunk read is sent as a binary one. Received text is written with a line end \
            after it; binary messages are written unchanged, on a terminal in hexadecimal.
            When the input ends, messages are still written until none arrives for --wait seconds, or until --count messages have arrived. \
            On a terminal, Ctrl-D closes at once.
            Exit status: 0 if closed by this side, or with 1000, 1001 or no code; 102 to 115 for 1002 to 1015, 120 for 3000 to 3999, 121 \
            for 4000 to 4999. If it was never open: 68 the name cannot be resolved, 69 the connection failed or was closed before the \
            response, 75 timeout, 76 the response does not open a WebSocket, 77 TLS.
            """)

    @OptionGroup var arguments: ClientArguments

    @Option(
        name: .long,
        help: ArgumentHelp("Send a ping after this many seconds without received bytes; close after twice as many.", valueName: "seconds"))
    var ping: Double?

    @Flag(name: .long, help: "Send and expect binary messages.")
    var binary = false

    @Option(name: .long, help: ArgumentHelp("Close after this many received messages.", valueName: "n"))
    var count: Int?

    @Option(
        name: .long, help: ArgumentHelp("Close after this many seconds without a message when the input has ended.", valueName: "seconds"))
    var wait = 1.0

    @Flag(name: .long, help: "Connect again, with growing delays, when the server cannot be reached or goes away.")
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
            // A single connection can afford context takeover, and some servers ignore the
            // parameters that would disable it.
            var compression = PerMessageDeflate.Configuration()
            compression.serverContextTakeover = .allowed
            compression.clientContextTakeover = .allowed
            options.extensions = [PerMessageDeflate(compression)]
        }
        let session = try ConnectSession(self, try Worker(client))
        throw ExitCode(try session.run(headers: arguments.headers(), options: options))
    }
}

/// A run of `apus connect`.
private final class ConnectSession: WebSocketHandler {
    private let command: Connect
    private let worker: Worker
    private let terminal = Terminal()
    private let isInputTerminal = isatty(0) == 1
    private var connection: ClientConnection?
    private var input: InputSource?
    /// The beginning of a line whose end has not been read.
    private var line: [UInt8] = []
    private var messages = 0
    private var inputHasEnded = false
    /// Input that was read without a connection, so that its end is detected.
    private var stashed: [[UInt8]] = []
    private var stashedBytes = 0
    private var hasBeenOpen = false
    /// How the last connection was closed, for a message.
    private var lastClosing = ""
    private var silenceTimer: DeadlineTimer?
    private var status: Int32?
    /// This side has closed the connection, so the peer's code does not matter.
    private var isClosing = false

    /// Bytes of a line: bounds the memory for an input without line ends.
    private static let maxLineBytes = 64 << 20
    /// Bytes of input read without a connection.
    private static let maxStashedBytes = 1 << 20
    /// Bytes of a binary message shown on a terminal.
    private static let shownBytes = 1024

    init(_ command: Connect, _ worker: Worker) throws {
        self.command = command
        self.worker = worker
    }

    /// Runs until the end of the session.
    ///
    /// - Returns: the exit status.
    func run(headers: HTTPFields, options: ClientOptions) throws -> Int32 {
        var options = options
        options.onRetry = { [terminal, unowned self] error, pause in
            let reason = error.map { "\($0)" } ?? lastClosing
            terminal.note("\(reason); retrying in \(Decimal.text(pause / .seconds(1), places: 1)) s", .red)
        }
        input = InputSource(0, in: worker) { [unowned self] bytes in read(bytes) }
        input?.resume()
        let interrupts = try InterruptSource(in: worker) { [unowned self] in close() }
        let arguments = command.arguments
        connection = worker.connect(
            to: arguments.url, subprotocols: arguments.subprotocol, headers: headers, origin: arguments.origin, options: options,
            makeHandler: { [unowned self] _ in self },
            failed: { [unowned self] error in
                terminal.note("\(error)", .red)
                status = ClientExit.status(error)
            })
        while status == nil { try worker.service() }
        withExtendedLifetime(interrupts) {}
        return status ?? 0
    }

    // MARK: Input

    private func read(_ bytes: [UInt8]) {
        guard connection?.socket != nil else { return stash(bytes) }
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
        if line.count > Self.maxLineBytes { fail("standard input: expected lines of at most \(Self.maxLineBytes) bytes, got a longer one") }
    }

    /// Stashes input while there is no connection.
    private func stash(_ bytes: [UInt8]) {
        if bytes.isEmpty {
            inputHasEnded = true
            // All input was sent, and without a connection no message can arrive.
            if isInputTerminal || hasBeenOpen && stashed.isEmpty && line.isEmpty && command.count == nil { close() }
            return
        }
        stashed.append(bytes)
        stashedBytes += bytes.count
        if stashedBytes >= Self.maxStashedBytes { input?.pause() }
    }

    private func take(_ line: inout [UInt8]) -> [UInt8] {
        defer { line = [] }
        return line
    }

    private func send(_ bytes: [UInt8], as kind: MessageKind) {
        if kind == .text, String(validating: bytes, as: UTF8.self) == nil {
            return fail("standard input: expected lines of UTF-8, got other bytes: use --binary")
        }
        guard let socket = connection?.socket else { return }
        if case .buffered = socket.send(bytes, as: kind) {
            input?.pause()
            socket.requestWritable()
        }
    }

    private func inputEnded() {
        if !line.isEmpty { send(take(&line), as: .text) }
        if isInputTerminal { return close() }
        if command.count == nil { waitForSilence() }
    }

    private func waitForSilence() {
        silenceTimer?.cancel()
        silenceTimer = worker.schedule(after: .seconds(command.wait)) { [unowned self] in close() }
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
        let chunks = stashed
        (stashed, stashedBytes) = ([], 0)
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
        if silenceTimer != nil, !isClosing { waitForSilence() }
    }

    private func show(_ message: Message) -> StandardStreams.Outcome {
        if let text = message.text { return terminal.write(line: text, .blue) }
        guard terminal.isTerminal else { return terminal.write(message.bytes) }
        let digits = message.bytes.prefix(Self.shownBytes).map { Decimal.hexadecimal($0) }.joined(separator: " ")
        let isCut = message.payload.byteCount > Self.shownBytes
        return terminal.write(line: "binary, \(message.payload.byteCount) bytes: \(digits)\(isCut ? " …" : "")", .blue)
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        silenceTimer?.cancel()
        silenceTimer = nil
        if isClosing { return stop(0) }
        let text = reason.isEmpty && code == .abnormal ? "the connection ended without a close frame" : reason
        lastClosing = "closed with \(code.rawValue)" + (text.isEmpty ? "" : " \(text)")
        guard command.reconnect else { return didEnd(code) }
        // `connection` knows after this callback whether it will reconnect.
        worker.schedule(after: .zero) { [unowned self] in
            if connection?.isOver == true { return didEnd(code) }
            // The end of the input ends the session, too.
            input?.resume()
        }
    }

    /// The connection has ended and will not be opened again.
    private func didEnd(_ code: CloseCode) {
        if terminal.isTerminal || ClientExit.status(code) != 0 { terminal.note(lastClosing, .red) }
        stop(ClientExit.status(code))
    }

    private func stop(_ value: Int32) {
        input?.cancel()
        if status == nil { status = value }
    }
}
