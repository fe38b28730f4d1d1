import Glibc

/// The one owner of a file descriptor: closes it when it goes out of scope.
package struct OwnedDescriptor: ~Copyable {
    package let rawValue: Int32

    /// Takes over an open descriptor.
    package init(rawValue: Int32) {
        precondition(rawValue >= 0, "a descriptor is never negative")
        self.rawValue = rawValue
    }

    deinit { _ = Glibc.close(rawValue) }

    /// Gives the descriptor up without closing it.
    package consuming func release() -> Int32 {
        let value = rawValue
        discard self
        return value
    }

    /// A second descriptor for what `rawValue` stands for (`fcntl F_DUPFD_CLOEXEC`).
    package static func duplicate(_ rawValue: Int32) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("fcntl") { fcntl(rawValue, F_DUPFD_CLOEXEC, 0) })
    }

    /// Closes a bare descriptor: for numbers kept in arrays, and for what a child inherited but must not hold.
    package static func close(_ rawValue: Int32) { _ = Glibc.close(rawValue) }
}
