import CLinux
import Glibc

/// Ends an `EventLoop`'s wait, from any thread, signal handler or process that holds it (an
/// eventfd). Several wake-ups before a read coalesce.
package final class Waker: Sendable {
    private let event: OwnedDescriptor

    package init() throws(SystemError) {
        event = OwnedDescriptor(rawValue: try blockingSyscall("eventfd") { eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC)) })
    }

    package var descriptor: Int32 { event.rawValue }

    package func wakeUp() {
        var one: UInt64 = 1
        // A full counter (EAGAIN) means that a wake-up is pending already.
        _ = unsafe write(event.rawValue, &one, 8)
    }

    package func silence() {
        var value: UInt64 = 0
        _ = unsafe read(event.rawValue, &value, 8)
    }
}
