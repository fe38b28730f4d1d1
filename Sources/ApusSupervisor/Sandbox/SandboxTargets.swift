import ApusPlatform

/// The objects that the attempts use, made outside of the sandbox.
final class SandboxTargets {
    /// A directory that only its owner may write.
    let place: String
    /// The directory that a permission names: every user may write there.
    let given: String
    let directory: OwnedDescriptor
    let listener: OwnedDescriptor
    let client: OwnedDescriptor
    let unbound: OwnedDescriptor
    let bound: OwnedDescriptor
    /// A pair like a control channel, and another one.
    let channel, channelEnd: OwnedDescriptor
    let other, otherEnd: OwnedDescriptor
    let master: Int32
    let masterHandle: OwnedDescriptor

    init() throws(SystemError) {
        place = try FileSystem.makeTemporaryDirectory()
        given = try FileSystem.makeTemporaryDirectory(mode: 0o777)
        directory = try FileSystem.openDirectory(place)
        let loopback = SocketAddress(numericHost: "127.0.0.1", port: 0)
        guard let loopback else { throw SystemError(code: SystemError.noSuchFile, call: "inet_pton") }
        listener = try Socket.stream(for: loopback)
        try Socket.bind(listener.rawValue, to: loopback)
        try Socket.listen(listener.rawValue, backlog: 1)
        client = try Socket.stream(for: loopback)
        _ = try Socket.connect(client.rawValue, to: try Socket.localAddress(of: listener.rawValue))
        unbound = try Socket.stream(for: loopback)
        bound = try Socket.stream(for: loopback)
        try Socket.bind(bound.rawValue, to: loopback)
        let pairs = (try Socket.packetPair().release(), try Socket.packetPair().release())
        channel = OwnedDescriptor(rawValue: pairs.0.first)
        channelEnd = OwnedDescriptor(rawValue: pairs.0.second)
        other = OwnedDescriptor(rawValue: pairs.1.first)
        otherEnd = OwnedDescriptor(rawValue: pairs.1.second)
        master = Process.id
        masterHandle = try Process.handle(of: Process.id)
    }

    /// Undoes the effects of an attempt.
    func restore() throws(SystemError) {
        try FileSystem.replace(place + "/page.html", with: "a page")
        try FileSystem.replace(place + "/key.pem", with: "a key", mode: 0o600)
        try FileSystem.replace(given + "/file", with: "a file")
        for name in ["/written", "/created"] { FileSystem.remove(place + name) }
        for name in Self.made { FileSystem.remove(given + name) }
    }

    private static let made = ["/created", "/renamed", "/link"]

    deinit {
        for name in ["/page.html", "/key.pem", "/written", "/created"] { FileSystem.remove(place + name) }
        for name in ["/file"] + Self.made { FileSystem.remove(given + name) }
        FileSystem.removeDirectory(place)
        FileSystem.removeDirectory(given)
    }
}
