import Apus
import ApusCodec
import ApusPlatform
import FuzzTargets
import Glibc
import TestSupport
import Testing

/// Every speed and every way of sending, on default limits. Time is simulated: what takes minutes passes in a moment.
@Suite("Slow peers")
struct SlowPeerTests {
    enum Transfer: String, CaseIterable, CustomTestStringConvertible {
        case echo, broadcast, file, upload, close, drain
        var testDescription: String { rawValue }
    }

    @Test(
        "a peer that keeps taking or sending bytes is never cut, and gets everything", arguments: Transfer.allCases,
        [100_000, 1_000_000, 10_000_000])
    func matrix(transfer: Transfer, bytesPerSecond: Int) throws {
        let outcome = try SlowPeer(transfer, bytesPerSecond: bytesPerSecond).run()
        #expect(outcome == "complete")
    }
}

/// One server and one client, whose connection carries so many bytes a second in each direction.
private final class SlowPeer {
    private let transfer: SlowPeerTests.Transfer
    private let bytesPerSecond: Int
    private let place: TemporaryDirectory
    private let clock = SimulatedClock()
    private let server: Worker
    private let client: Worker
    private let relay: ThrottledRelay
    /// Nil until the transfer is over: "complete", or what went wrong.
    fileprivate var outcome: String?

    /// More than all buffers on the way hold: so the speed is what the sender sees. What waits in the server for a subscriber is limited, and
    /// so is a request's body.
    static let largeBytes = 8 << 20
    static let bufferedBytes = 900_000

    init(_ transfer: SlowPeerTests.Transfer, bytesPerSecond: Int) throws {
        self.transfer = transfer
        self.bytesPerSecond = bytesPerSecond
        place = try TemporaryDirectory()
        var description = Server()
        description.logger = .silent
        description.origins = .any
        description.listen(on: .unix(path: "\(place.path)/server"))
        try Files.write([UInt8](repeating: 7, count: Self.largeBytes), to: place.path + "/large")
        description.files(at: "/", in: place.path)
        description.webSocket("slow", at: "/") { [transfer] _ in SlowPeerHandler(transfer) }
        description.http(.post, at: "/upload") { $0.respond(text: "\($0.request.body.count)") }
        server = try Worker(
            description, poller: SimulatedPoller(clock, seed: 1), random: SeededGenerator(seed: 1))
        var nothing = Server()
        nothing.logger = .silent
        client = try Worker(nothing, poller: SimulatedPoller(clock, seed: 2), random: SeededGenerator(seed: 2))
        relay = try ThrottledRelay(at: "\(place.path)/relay", to: "\(place.path)/server", bytesPerSecond: bytesPerSecond)
    }

    func run() throws -> String {
        let path = "\(place.path)/relay"
        switch transfer {
        case .echo, .broadcast, .close, .drain:
            let handler = SlowClient(transfer, self)
            client.connect(
                to: "ws+unix://\(path):/", makeHandler: { _ in handler }, failed: { [unowned self] in outcome = "failed: \($0)" })
        case .file:
            var options = ClientOptions()
            options.maxResponseBodyBytes = 2 * Self.largeBytes
            client.request("http+unix://\(path):/large", options: options) { [unowned self] in ended($0, bytes: Self.largeBytes) }
        case .upload:
            client.request("http+unix://\(path):/upload", method: .post, body: [UInt8](repeating: 1, count: Self.bufferedBytes)) {
                [unowned self] in ended($0, text: "\(Self.bufferedBytes)")
            }
        }
        // Ten minutes of the slowest line.
        let limit = clock.now.milliseconds + 600_000
        var hasDrained = false
        while outcome == nil, clock.now.milliseconds < limit {
            for _ in 0..<4 {
                try server.service(timeout: .zero)
                try client.service(timeout: .zero)
                relay.step(at: clock.now)
            }
            if transfer == .drain, server.connectionCount > 0, relay.carried > 10_000, !hasDrained {
                hasDrained = true
                server.drain()
            }
            clock.now = MonotonicTime(milliseconds: clock.now.milliseconds + 5)
        }
        return outcome ?? "no end after ten minutes"
    }

    private func ended(_ result: Result<HTTPResponse, ConnectError>, bytes: Int = 0, text: String = "") {
        switch result {
        case .success(let response):
            let isComplete = response.body.count == bytes || response.body.elementsEqual(text.utf8)
            outcome = isComplete ? "complete" : "\(response.status), \(response.body.count) bytes"
        case .failure(let error): outcome = "failed: \(error)"
        }
    }
}

private final class SlowPeerHandler: WebSocketHandler {
    private let transfer: SlowPeerTests.Transfer
    private var published = 0

    init(_ transfer: SlowPeerTests.Transfer) { self.transfer = transfer }

    func opened(_ socket: WebSocket) {
        switch transfer {
        case .broadcast:
            socket.subscribe(to: "news")
            publishNext(socket)
        case .close, .drain:
            socket.send(binary: [UInt8](repeating: 3, count: SlowPeer.bufferedBytes))
            if transfer == .close { socket.close() }
        case .echo, .file, .upload: break
        }
    }

    /// Twenty publications of 50,000 bytes, as fast as the slowest subscriber of the matrix takes them.
    private func publishNext(_ socket: WebSocket) {
        guard published < 20, socket.isOpen else { return }
        published += 1
        socket.worker.publish([UInt8](repeating: 4, count: 50_000), as: .binary, to: "news")
        socket.worker.schedule(after: .milliseconds(500)) { [self] in publishNext(socket) }
    }

    func received(_ message: Message, on socket: WebSocket) { socket.send(message) }
}

private final class SlowClient: WebSocketHandler {
    private let transfer: SlowPeerTests.Transfer
    private unowned let peer: SlowPeer
    private var received = 0
    private var sent = 0
    /// Of echo: less than `Limits.maxBufferedBytes` at once, so that it is the server's output that waits.
    private static let messageBytes = 256 * 1024

    init(_ transfer: SlowPeerTests.Transfer, _ peer: SlowPeer) {
        self.transfer = transfer
        self.peer = peer
    }

    func opened(_ socket: WebSocket) { if transfer == .echo { writable(socket) } }

    func writable(_ socket: WebSocket) {
        guard sent < SlowPeer.largeBytes else { return }
        sent += Self.messageBytes
        socket.send(binary: [UInt8](repeating: 5, count: Self.messageBytes))
        socket.requestWritable()
    }

    func received(_ message: Message, on socket: WebSocket) {
        received += message.payload.byteCount
        switch transfer {
        case .echo where received == SlowPeer.largeBytes, .broadcast where received == 20 * 50_000: socket.close()
        default: break
        }
    }

    func closed(_ socket: WebSocket, code: CloseCode, reason: String) {
        let (bytes, expected): (Int, CloseCode) =
            switch transfer {
            case .echo: (SlowPeer.largeBytes, .normal)
            case .broadcast: (20 * 50_000, .normal)
            case .close: (SlowPeer.bufferedBytes, .normal)
            case .drain: (SlowPeer.bufferedBytes, .serviceRestart)
            case .file, .upload: (0, .normal)
            }
        peer.outcome = received == bytes && code == expected ? "complete" : "closed \(code) (\(reason)) after \(received) bytes"
    }
}

/// Carries one connection at a limited speed.
private final class ThrottledRelay {
    private let listener: Int32
    private let server: SocketAddress
    private let bytesPerSecond: Int
    private var ends: [Int32] = []
    private var waiting: [[UInt8]] = [[], []]
    private var hasEnded = [false, false]
    private var isForwarded = [false, false]
    private var credit = [0, 0]
    private var last: MonotonicTime?
    /// Bytes from the server that the client was given.
    private(set) var carried = 0

    init(at path: String, to server: String, bytesPerSecond: Int) throws {
        self.server = .unix(path: server)
        self.bytesPerSecond = bytesPerSecond
        let socket = try Socket.stream(for: .unix(path: path))
        try Socket.bind(socket.rawValue, to: .unix(path: path))
        listener = socket.release()
        listen(listener, 8)
    }

    deinit { for descriptor in ends + [listener] { close(descriptor) } }

    func step(at now: MonotonicTime) {
        if ends.isEmpty {
            guard case .done(let (number, _))? = try? Socket.accept(listener), let other = try? Socket.stream(for: server) else { return }
            _ = try? Socket.connect(other.rawValue, to: server)
            ends = [number, other.release()]
        }
        let milliseconds = Int(now.millisecondsSince(last ?? now))
        last = now
        for from in 0...1 {
            // No more than 50 ms of the line at once.
            credit[from] = min(credit[from] + bytesPerSecond * milliseconds / 1000, bytesPerSecond / 20)
            move(from)
        }
    }

    private func move(_ from: Int) {
        if !hasEnded[from], waiting[from].count < 16_384 {
            var buffer = [UInt8](repeating: 0, count: 16_384)
            let count = recv(ends[from], &buffer, buffer.count, Int32(MSG_DONTWAIT))
            if count > 0 { waiting[from] += buffer[..<count] } else if count == 0 || errno != EAGAIN { hasEnded[from] = true }
        }
        let most = min(waiting[from].count, credit[from])
        if most > 0 {
            let count = send(ends[1 - from], waiting[from], most, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
            if count > 0 {
                waiting[from].removeFirst(count)
                credit[from] -= count
                if from == 1 { carried += count }
            } else if errno != EAGAIN {
                waiting[from] = []
                hasEnded[from] = true
            }
        }
        if hasEnded[from], waiting[from].isEmpty, !isForwarded[from] {
            isForwarded[from] = true
            shutdown(ends[1 - from], Int32(SHUT_WR))
        }
    }
}
