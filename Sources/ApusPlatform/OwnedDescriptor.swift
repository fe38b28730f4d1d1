import Glibc

/// Owns a file descriptor, and closes it when it goes out of scope.
package struct OwnedDescriptor: ~Copyable {
    package let rawValue: Int32

    /// Takes ownership of an open descriptor.
    package init(rawValue: Int32) {
        precondition(rawValue >= 0, "expected a descriptor, got \(rawValue)")
        self.rawValue = rawValue
    }

    deinit { _ = Glibc.close(rawValue) }

    /// Returns the descriptor without closing it.
    package consuming func release() -> Int32 {
        let value = rawValue
        discard self
        return value
    }

    /// Duplicates a descriptor (`fcntl F_DUPFD_CLOEXEC`).
    package static func duplicate(_ rawValue: Int32) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("fcntl") { fcntl(rawValue, F_DUPFD_CLOEXEC, 0) })
    }

    /// Closes a descriptor without an owner: one kept in an array, or inherited by a child.
    package static func close(_ rawValue: Int32) { _ = Glibc.close(rawValue) }
}
