import ApusPlatform
import Glibc
import Testing

/// Two connected stream sockets, both non-blocking, closed at the end.
final class SocketPair {
    let near: Int32
    let far: Int32
    private var isNearOpen = true
    private var isFarOpen = true

    /// - Parameter sendBufferBytes: what the kernel may hold of what `near` sends; it rounds up to a few KiB.
    init(sendBufferBytes: Int32? = nil) throws {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        try #require(socketpair(AF_UNIX, kind, 0, &ends) == 0)
        (near, far) = (ends[0], ends[1])
        if let sendBufferBytes { try Socket.set(.sendBuffer(sendBufferBytes), on: near) }
    }

    deinit {
        if isNearOpen { close(near) }
        closeFar()
    }

    func closeFar() {
        if isFarOpen { close(far) }
        isFarOpen = false
    }

    /// `near`, which the caller closes from now on.
    func takeNear() -> OwnedDescriptor {
        isNearOpen = false
        return OwnedDescriptor(rawValue: near)
    }

    /// `far`, which the caller closes from now on.
    func takeFar() -> OwnedDescriptor {
        isFarOpen = false
        return OwnedDescriptor(rawValue: far)
    }

    /// What has arrived at the far end.
    func received() -> [UInt8] { receiveAll(far) }
}

/// Everything that can be read now.
func receiveAll(_ descriptor: Int32) -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = recv(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { return bytes }
        bytes += buffer[..<count]
    }
}

/// A file with the given content and no name.
func temporaryFile(_ content: [UInt8]) throws -> OwnedDescriptor {
    let stream = try #require(tmpfile())
    defer { fclose(stream) }
    let file = OwnedDescriptor(rawValue: dup(fileno(stream)))
    try #require(write(fileno(stream), content, content.count) == content.count)
    return file
}

/// Bytes in which every place is told from its neighbours.
func pattern(_ count: Int, from start: Int = 0) -> [UInt8] {
    (start..<start + count).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }
}
