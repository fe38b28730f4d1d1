import ApusPlatform

/// How a process gets its listeners from another one: from the program that it replaces, by
/// environment variables, or from a service manager.
package enum Inheritance {
    /// The value is `SlotListeners.handedDown`.
    package static let listeners = "APUS_LISTENERS"
    /// The value is the descriptor of a channel: the new program reports on it that it is ready,
    /// and reads the upgrade payload from it.
    package static let channel = "APUS_UPGRADE"

    /// What the old program left for the new one besides the listeners.
    ///
    /// - Returns: `SupervisorDelegate.upgradePayload`; nil if it was empty.
    package static func upgradePayload(on channel: Int32) -> [UInt8]? {
        guard case .record(let bytes) = ControlChannel.receive(from: channel) else { return nil }
        return bytes
    }

    // MARK: Listeners

    /// The value of `listeners`: `ADDRESS=KIND:N,N;…`, with the addresses of the configuration.
    static func text(of groups: [ListenerGroup]) -> String {
        groups.map { group in
            let numbers = group.sockets.map(String.init).joined(separator: ",")
            let kind = group.kind == .perSlot ? "slots" : group.fileOwner == .thisProcess ? "file" : "shared"
            return "\(escaped("\(group.requested)"))=\(kind):\(numbers)"
        }.joined(separator: ";")
    }

    /// Parses the value of `listeners`. Descriptors that are not listening sockets are ignored.
    package static func groups(in text: String) -> [ListenerGroup] {
        text.split(separator: ";").compactMap { entry in
            guard let equals = entry.lastIndex(of: "="),
                let requested = SocketAddress(parsing: unescaped(entry[..<equals]))
            else { return nil }
            let parts = entry[entry.index(after: equals)...].split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { return nil }
            let sockets = parts[1].split(separator: ",").compactMap { Int32($0) }.filter(Socket.isListening)
            guard let first = sockets.first, let bound = adopt(sockets, first) else { return nil }
            return ListenerGroup(
                requested: requested, bound: bound, kind: parts[0] == "slots" ? .perSlot : .shared,
                sockets: sockets, fileOwner: parts[0] == "file" ? .predecessor : .other)
        }
    }

    /// The sockets that a service manager has opened, one or several for an address.
    package static func groups(descriptors: Range<Int32>) -> [ListenerGroup] {
        var order: [SocketAddress] = []
        var sockets: [SocketAddress: [Int32]] = [:]
        for descriptor in descriptors where Socket.isListening(descriptor) {
            guard let address = adopt([descriptor], descriptor) else { continue }
            if sockets[address] == nil { order.append(address) }
            sockets[address, default: []].append(descriptor)
        }
        return order.map {
            ListenerGroup(requested: $0, bound: $0, kind: .shared, sockets: sockets[$0] ?? [], fileOwner: .other)
        }
    }

    private static func adopt(_ sockets: [Int32], _ first: Int32) -> SocketAddress? {
        for socket in sockets { guard (try? Socket.adopt(socket)) != nil else { return nil } }
        return try? Socket.localAddress(of: first)
    }

    /// Escapes the separator of entries, which a path may contain.
    private static func escaped(_ address: String) -> String {
        address.replacing("%", with: "%25").replacing(";", with: "%3B")
    }

    private static func unescaped(_ text: some StringProtocol) -> String {
        String(text).replacing("%3B", with: ";").replacing("%25", with: "%")
    }
}

/// The program that started this one with its listeners. It serves until this one reports that it
/// is ready.
final class Predecessor {
    private let channel: ControlChannel

    init(descriptor: Int32) { channel = ControlChannel(OwnedDescriptor(rawValue: descriptor)) }

    var descriptor: Int32 { channel.descriptor }

    /// All workers accept here. If the old program has died meanwhile, the report has no receiver,
    /// and none is needed.
    func reportReady() { channel.send(WorkerReport.ready.record) }
}
