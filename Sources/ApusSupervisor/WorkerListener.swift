package import ApusPlatform

/// An address cannot be listened on.
package struct ListenError: Error, Equatable, CustomStringConvertible {
    package let address: SocketAddress
    package let cause: SystemError

    /// `cannot listen on 127.0.0.1:80: bind: Permission denied`
    package var description: String { "cannot listen on \(address): \(cause)" }

    /// Whether another socket has the address.
    package var isAddressInUse: Bool { cause.code == SystemError.addressInUse }
}

/// A socket that a worker accepts from.
package struct WorkerListener: Equatable, Sendable {
    /// A copy of the master's; the worker closes it when it no longer accepts.
    package let descriptor: Int32
    /// The index of its address among those of the generation.
    package let place: Int
    /// The address with its actual port.
    package let address: SocketAddress
    /// Other workers wait on the same socket, so the kernel must wake only one of them.
    package let isShared: Bool
}
