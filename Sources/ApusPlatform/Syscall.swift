import Glibc

/// ApusPlatform is the only module that meets the kernel: every call goes through `syscall`, every descriptor has one owner,
/// and what it reports is either a value, "would block", or a `SystemError` that names the call.

/// A call of the operating system failed.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    /// The `errno` value.
    package let code: Int32
    /// The call's name, as in section 2 of the manual.
    package let call: String

    package init(code: Int32, call: StaticString) {
        self.code = code
        self.call = "\(call)"
    }

    /// The C library's words for the code, such as "Address already in use".
    package var reason: String { unsafe String(cString: strerror(code)) }

    package var description: String { "\(call): \(reason)" }

    /// Nobody listens there (`ECONNREFUSED`).
    package static let connectionRefused = ECONNREFUSED
    /// Somebody else has the address (`EADDRINUSE`).
    package static let addressInUse = EADDRINUSE
    /// The peer broke the rules of a protocol beneath ours (`EPROTO`).
    package static let brokenProtocol = EPROTO
    /// A path does not fit (`ENAMETOOLONG`).
    package static let nameTooLong = ENAMETOOLONG
    /// Nobody reads what is written (`EPIPE`).
    package static let brokenPipe = EPIPE
    /// There is no such file (`ENOENT`).
    package static let noSuchFile = ENOENT
}

/// What a non-blocking call gave.
package enum IOResult<Value> {
    case done(Value)
    case wouldBlock
}

/// The one place where a result below zero becomes an error: retries `EINTR`, tells "would block" apart.
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

/// The same for calls that cannot block: `EAGAIN` is an error like any other.
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
