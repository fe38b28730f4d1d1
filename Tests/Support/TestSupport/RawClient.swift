import Glibc

/// A TCP connection to 127.0.0.1 that sends and receives exactly what a test says. Every call ends by the client's deadline.
public final class RawClient: @unchecked Sendable {
    public enum Failure: Error, Equatable, CustomStringConvertible {
        /// `connect(2)` failed with this errno: there was no connection.
        case connect(Int32)
        case timeout(String)
        /// The connection ended, in order or by a reset, before what was waited for.
        case ended(wasReset: Bool)

        /// Whether there was a connection, and the other side has ended it.
        public var isEnd: Bool {
            switch self {
            case .ended: true
            case .connect, .timeout: false
            }
        }

        public var description: String {
            switch self {
            case .connect(let code): "connect: \(String(cString: strerror(code)))"
            case .timeout(let what): "no \(what) in time"
            case .ended(let wasReset): wasReset ? "connection reset" : "connection ended"
            }
        }
    }

    public let descriptor: Int32
    /// How long each call may take.
    public var timeout: Duration
    /// Received, not yet used.
    private var pending: [UInt8] = []

    /// A connection to a port, as the other initializer makes it.
    public convenience init(port: UInt16, source: UInt8? = nil, keepsLittle: Bool = false, timeout: Duration = .seconds(10)) throws {
        try self.init(source: source, keepsLittle: keepsLittle, timeout: timeout)
        try connect(to: port)
    }

    /// A socket that is to connect: it has a name, `localEnd`, even if its connection is lost at once.
    ///
    /// - Parameters:
    ///   - source: the last byte of the address 127.0.0.N to connect from, so that many connections find free ports.
    ///   - keepsLittle: what is not read stays in the server's hands: neither kernel takes more than some 50 KiB of it.
    public init(source: UInt8? = nil, keepsLittle: Bool = false, timeout: Duration = .seconds(10)) throws {
        self.timeout = timeout
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw TestFailure.call("socket") }
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        if let source {
            setsockopt(descriptor, Int32(IPPROTO_IP), Self.bindAddressNoPort, &on, socklen_t(MemoryLayout<Int32>.size))
            _ = Self.withAddress(host: source, port: 0) { bind(descriptor, $0, $1) }
        }
        if keepsLittle {
            var (window, segment): (Int32, Int32) = (4096, 536)
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &window, socklen_t(MemoryLayout<Int32>.size))
            // The sender's kernel reckons in segments.
            setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_MAXSEG, &segment, socklen_t(MemoryLayout<Int32>.size))
        }
    }

    /// Connects, once.
    ///
    /// - Throws: `Failure.connect` if there was no connection, `Failure.ended` if there was one and it has been reset already.
    public func connect(to port: UInt16) throws {
        try beginConnecting(to: port)
        try finishConnecting()
    }

    /// Calls `connect(2)`: over loopback that is all of the handshake.
    public func beginConnecting(to port: UInt16) throws {
        let result = Self.withAddress(host: 1, port: port) { Glibc.connect(descriptor, $0, $1) }
        guard result == 0 || errno == EINPROGRESS else {
            let code = errno
            throw Failure.connect(code)
        }
    }

    /// Waits for the connection.
    public func finishConnecting() throws {
        try wait(for: Int16(POLLOUT), Deadline(after: timeout), "connection")
        var code: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &size)
        switch code {
        case 0: return
        // A reset in answer to our SYN is ECONNREFUSED; this is one after the handshake (`tcp_reset` of Linux).
        case ECONNRESET: throw Failure.ended(wasReset: true)
        default: throw Failure.connect(code)
        }
    }

    deinit { end() }

    private var hasEnded = false

    /// Closes the connection.
    public func end() {
        if !hasEnded { close(descriptor) }
        hasEnded = true
    }

    /// IP_BIND_ADDRESS_NO_PORT of linux/in.h: the port is chosen by connect, not by bind.
    private static let bindAddressNoPort: Int32 = 24

    private static func withAddress(host: UInt8, port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = (UInt32(0x7f00_0000) | UInt32(host)).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// This end's port.
    public var localPort: UInt16 { localEnd.port }

    /// This end's name, also when the connection has been reset.
    public var localEnd: SocketTable.End { SocketTable.localEnd(of: descriptor) ?? SocketTable.End(address: 0, port: 0) }

    /// Makes the close a reset, which leaves no TIME_WAIT behind.
    public func resetOnClose() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
    }

    /// Sends our end of stream.
    public func finishSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Whether the server has closed or reset the connection, told without reading.
    public var hasHungUp: Bool {
        var entry = pollfd(fd: descriptor, events: Self.peerHangUp, revents: 0)
        return poll(&entry, 1, 0) > 0
    }

    /// POLLRDHUP of linux/poll.h, which glibc declares for _GNU_SOURCE only.
    private static let peerHangUp: Int16 = 0x2000

    // MARK: Bytes

    public func send(_ text: String) throws { try send(Array(text.utf8)) }

    public func send(_ bytes: [UInt8]) throws {
        let deadline = Deadline(after: timeout)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress?.advanced(by: done), bytes.count - done, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 {
                done += count
            } else if errno == EAGAIN {
                try wait(for: Int16(POLLOUT), deadline, "room to send")
            } else {
                throw Failure.ended(wasReset: true)
            }
        }
    }

    /// Exactly `count` bytes.
    public func receive(_ count: Int) throws -> [UInt8] {
        let deadline = Deadline(after: timeout)
        while pending.count < count { try receiveMore(deadline, "\(count) bytes") }
        defer { pending.removeFirst(count) }
        return Array(pending.prefix(count))
    }

    /// Everything up to and including `end`.
    public func receive(until end: String) throws -> String {
        let deadline = Deadline(after: timeout)
        let end = Array(end.utf8)
        var searched = 0
        while true {
            var index = max(0, searched - end.count)
            while index + end.count <= pending.count {
                if pending[index..<index + end.count].elementsEqual(end) {
                    defer { pending.removeFirst(index + end.count) }
                    return String(decoding: pending[..<(index + end.count)], as: UTF8.self)
                }
                index += 1
            }
            searched = pending.count
            try receiveMore(deadline, String(decoding: end, as: UTF8.self))
        }
    }

    /// Everything until the other side ends the stream, by a reset too.
    public func receiveToEnd() throws -> [UInt8] {
        let deadline = Deadline(after: timeout)
        while true {
            do {
                try receiveMore(deadline, "end")
            } catch Failure.ended {
                defer { pending = [] }
                return pending
            }
        }
    }

    private func receiveMore(_ deadline: Deadline, _ what: String) throws {
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count > 0 {
                pending += buffer[..<count]
                return
            }
            if count == 0 { throw Failure.ended(wasReset: false) }
            if errno != EAGAIN { throw Failure.ended(wasReset: true) }
            try wait(for: Int16(POLLIN), deadline, what)
        }
    }

    private func wait(for events: Int16, _ deadline: Deadline, _ what: String) throws {
        var entry = pollfd(fd: descriptor, events: events, revents: 0)
        while true {
            let count = poll(&entry, 1, deadline.pollMilliseconds)
            if count > 0 { return }
            if count == 0 { throw Failure.timeout(what) }
            guard errno == EINTR else { throw TestFailure.call("poll") }
        }
    }
}

// MARK: HTTP

/// An HTTP response as a raw client reads it.
public struct RawResponse: Sendable, CustomStringConvertible {
    public let status: Int
    /// Names in lower case.
    public let fields: [(name: String, value: String)]
    public var body: [UInt8] = []

    public subscript(_ name: String) -> String? { fields.first { $0.name == name }?.value }
    public var text: String { String(decoding: body, as: UTF8.self) }
    public var description: String { "\(status) \(fields.map { "\($0.name): \($0.value)" }.joined(separator: "; "))" }

    init(head: String) throws {
        let lines = head.split(separator: "\r\n")
        let words = lines.first?.split(separator: " ") ?? []
        guard words.count >= 2, words[0] == "HTTP/1.1", let status = Int(words[1]) else {
            throw TestFailure("no response head: \(head)")
        }
        self.status = status
        fields = lines.dropFirst().map { line in
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            return (parts[0].lowercased(), String(parts.last?.drop { $0 == " " } ?? ""))
        }
    }
}

extension RawClient {
    /// Reads one response. `hasBody` is false for the answer to HEAD.
    public func response(hasBody: Bool = true) throws -> RawResponse {
        var response = try RawResponse(head: receive(until: "\r\n\r\n"))
        if hasBody, response.status >= 200, response.status != 204, response.status != 304 {
            response.body = try receive(Int(response["content-length"] ?? "") ?? 0)
        }
        return response
    }

    /// Sends a request with the given lines after the request line and reads the answer.
    public func request(_ line: String, _ fields: String..., body: String = "") throws -> RawResponse {
        try send(([line + " HTTP/1.1", "Host: 127.0.0.1"] + fields).joined(separator: "\r\n") + "\r\n\r\n" + body)
        return try response(hasBody: !line.hasPrefix("HEAD "))
    }
}
