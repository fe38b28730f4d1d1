import ApusPlatform
import TestSupport
import Glibc

/// The network between a server and its clients: each connection passes through it in pieces, late, and some are cut.
final class Relay {
    private final class Link {
        /// The client's end and the server's.
        let ends: [OwnedEnd]
        /// Bytes from each end that the other has not taken.
        var waiting: [[UInt8]] = [[], []]
        var hasEnded = [false, false]
        var endIsForwarded = [false, false]
        /// It is cut behind so many bytes more; nil: never.
        var bytesUntilCut: Int?

        init(_ client: OwnedEnd, _ server: OwnedEnd, bytesUntilCut: Int?) {
            ends = [client, server]
            self.bytesUntilCut = bytesUntilCut
        }

        var isOver: Bool { endIsForwarded[0] && endIsForwarded[1] }
    }

    /// A descriptor that closes with it.
    private final class OwnedEnd {
        let number: Int32
        init(_ number: Int32) { self.number = number }
        deinit { close(number) }
    }

    private let listener: OwnedEnd
    private let server: SocketAddress
    private var random: SeededGenerator
    private var links: [Link] = []
    /// Connections that were cut.
    private(set) var cuts = 0
    private let cutsSome: Bool

    /// Bytes that wait for one end at most: then no more is taken from the other.
    private static let capacity = 64 * 1024

    /// - Parameter path: where clients connect.
    init(at path: String, to server: SocketAddress, seed: UInt64, cutsSome: Bool) throws {
        self.server = server
        self.cutsSome = cutsSome
        random = SeededGenerator(seed: seed)
        let socket = try Socket.stream(for: .unix(path: path))
        try Socket.bind(socket.rawValue, to: .unix(path: path))
        listener = OwnedEnd(socket.release())
        listen(listener.number, 64)
    }

    /// Accepts what waits, and moves something in each connection.
    ///
    /// - Returns: whether anything happened, or can happen.
    func step() throws -> Bool {
        var isBusy = try accept()
        for link in links { isBusy = move(link) || isBusy }
        links.removeAll(where: \.isOver)
        return isBusy
    }

    private func accept() throws -> Bool {
        guard case .done(let (number, _)) = try Socket.accept(listener.number) else { return false }
        let client = OwnedEnd(number)
        let socket = try Socket.stream(for: server)
        let end = OwnedEnd(socket.release())
        // A server that has gone refuses.
        guard case .done? = try? Socket.connect(end.number, to: server) else { return true }
        let isCut = cutsSome && UInt8.random(in: 0..<4, using: &random) == 0
        links.append(Link(client, end, bytesUntilCut: isCut ? Int.random(in: 0..<60_000, using: &random) : nil))
        return true
    }

    private func move(_ link: Link) -> Bool {
        var isBusy = false
        for from in 0...1 where !link.isOver {
            // Some steps pass without this direction: it is late. Nothing can get stuck, because the caller steps again.
            if UInt8.random(in: 0..<3, using: &random) == 0, isPending(link, from) {
                isBusy = true
                continue
            }
            isBusy = receive(link, from) || isBusy
            isBusy = send(link, from) || isBusy
        }
        return isBusy
    }

    private func isPending(_ link: Link, _ from: Int) -> Bool {
        !link.waiting[from].isEmpty || (!link.hasEnded[from] && Socket.hasInput(link.ends[from].number))
    }

    private func receive(_ link: Link, _ from: Int) -> Bool {
        guard !link.hasEnded[from], link.waiting[from].count < Self.capacity else { return false }
        let sizes = [1, 2, 7, 100, 1000, 16_384, 65_536]
        var buffer = [UInt8](repeating: 0, count: sizes[Int.random(in: 0..<sizes.count, using: &random)])
        let count = recv(link.ends[from].number, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        if count > 0 {
            link.waiting[from] += buffer[..<count]
            if let left = link.bytesUntilCut {
                link.bytesUntilCut = left - count
                if left < count { cut(link) }
            }
            return true
        }
        guard count == 0 || errno != EAGAIN else { return false }
        link.hasEnded[from] = true
        return true
    }

    private func send(_ link: Link, _ from: Int) -> Bool {
        let other = link.ends[1 - from].number
        if !link.waiting[from].isEmpty {
            let most = Int.random(in: 1...link.waiting[from].count, using: &random)
            let count = Glibc.send(other, link.waiting[from], most, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
            if count > 0 {
                link.waiting[from].removeFirst(count)
                return true
            }
            guard errno != EAGAIN else { return false }
            // The other end has gone: what is for it is lost, and this end hears of it.
            cut(link)
            return true
        }
        guard link.hasEnded[from], !link.endIsForwarded[from] else { return false }
        shutdown(other, Int32(SHUT_WR))
        link.endIsForwarded[from] = true
        return true
    }

    /// Both ends see the end, and what was on its way is lost.
    private func cut(_ link: Link) {
        for end in link.ends { shutdown(end.number, Int32(SHUT_RDWR)) }
        link.waiting = [[], []]
        link.hasEnded = [true, true]
        link.endIsForwarded = [true, true]
        cuts += 1
    }
}
