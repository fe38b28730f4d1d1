import ApusPlatform
import Glibc
import Testing

@Suite("Sockets")
struct SocketTests {
    /// Two ends that somebody who shares them has made blocking. A call that waits gives up after two seconds.
    private func blockingPair() throws -> (first: OwnedEnd, second: OwnedEnd) {
        let pair = try Socket.packetPair().release()
        for end in [pair.first, pair.second] {
            // A timeval: seconds and microseconds.
            var patience = [2, 0]
            for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
                try #require(setsockopt(end, SOL_SOCKET, option, &patience, 16) == 0)
            }
            try #require(fcntl(end, F_SETFL, fcntl(end, F_GETFL) & ~O_NONBLOCK) == 0)
        }
        return (OwnedEnd(pair.first), OwnedEnd(pair.second))
    }

    private final class OwnedEnd {
        private let end: OwnedDescriptor
        init(_ number: Int32) { end = OwnedDescriptor(rawValue: number) }
        var rawValue: Int32 { end.rawValue }
    }

    @Test("nothing waits, although whoever shares the socket has cleared O_NONBLOCK")
    func atOnce() throws {
        let (first, second) = try blockingPair()
        let started = MonotonicTime.now()
        guard case .wouldBlock = try Socket.receivePacket(first.rawValue, maxBytes: 100) else { throw Unexpected() }
        var sent = 0
        while case .done = try Socket.send(second.rawValue, [1, 2, 3]) { sent += 1 }
        var piece: [UInt8] = [4]
        try piece.withUnsafeMutableBytes { bytes in
            var pieces = [iovec(iov_base: bytes.baseAddress, iov_len: 1)]
            try pieces.withUnsafeMutableBufferPointer {
                guard case .wouldBlock = try Socket.send(second.rawValue, pieces: $0) else { throw Unexpected() }
            }
        }
        #expect(sent > 0 && MonotonicTime.now() < started + .seconds(2))
    }

    private struct Unexpected: Error {}

    @Test("who shares an end and shuts it down is noticed, by who reads at the other")
    func shut() throws {
        let (first, second) = try blockingPair()
        _ = try Socket.send(second.rawValue, [1])
        #expect(!Socket.isShut(first.rawValue) && !Socket.isShut(second.rawValue))
        try Socket.shutdownWrite(second.rawValue)
        #expect(Socket.isShut(first.rawValue) && !Socket.isShut(second.rawValue))
    }
}
