import Glibc

/// ApusPlatform is the only module with system calls: each goes through `syscall`, each descriptor
/// has one owner, and a result is a value, "would block", or a `SystemError` that names the call.

/// A failed system call.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    /// The `errno` value.
    package let code: Int32
    /// The call's name, as in section 2 of the manual.
    package let call: String

    package init(code: Int32, call: StaticString) {
        self.code = code
        self.call = "\(call)"
    }

    /// The C library's text for the code, such as "Address already in use".
    package var reason: String { unsafe String(cString: strerror(code)) }

    package var description: String { "\(call): \(reason)" }

    /// `ECONNREFUSED`: no process listens there.
    package static let connectionRefused = ECONNREFUSED
    /// `EADDRINUSE`: the address is in use.
    package static let addressInUse = EADDRINUSE
    /// `EPROTO`: the peer violated a lower protocol, such as TLS.
    package static let brokenProtocol = EPROTO
    /// `ENAMETOOLONG`: the path is too long.
    package static let nameTooLong = ENAMETOOLONG
    /// `EPIPE`: the reading end is closed.
    package static let brokenPipe = EPIPE
    /// `ENOENT`: the file does not exist.
    package static let noSuchFile = ENOENT
}

/// The result of a non-blocking call.
package enum IOResult<Value> {
    case done(Value)
    case wouldBlock
}

/// The only place where a negative result becomes an error: retries on `EINTR`, and returns
/// `.wouldBlock` for `EAGAIN`.
@inline(__always)
func syscall<Value: SignedInteger>(_ call: StaticString, _ body: () -> Value) throws(SystemError) -> IOResult<Value> {
    while true {
        let result = body()
        if result >= 0 { return .done(result) }
        switch errno {
        case EINTR: continue
        case EAGAIN: return .wouldBlock
        case let code: throw SystemError(code: code, call: call)
        }
    }
}

/// As `syscall`, for calls that cannot block: `EAGAIN` is an error like any other.
@inline(__always)
@discardableResult
func blockingSyscall<Value: SignedInteger>(_ call: StaticString, _ body: () -> Value) throws(SystemError) -> Value {
    while true {
        let result = body()
        if result >= 0 { return result }
        let code = errno
        if code != EINTR { throw SystemError(code: code, call: call) }
    }
}
