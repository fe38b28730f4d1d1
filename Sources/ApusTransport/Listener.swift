package import ApusPlatform
import Glibc

/// Accepts connections from one listening socket, in bounded batches, and handles descriptor
/// exhaustion.
///
/// When no descriptor is left, the listener closes a spare one, accepts a connection with it and
/// closes that at once, so that the client gets an error. It then pauses instead of spinning on a
/// readiness that it cannot serve.
package final class Listener: EventSource {
    /// Borrowed: the slot's owner closes it.
    package let descriptor: Int32
    private let interest: Interest
    private var spare: OwnedDescriptor?
    private let accepted: (consuming OwnedDescriptor, SocketAddress) -> Void
    private let refused: (SystemError) -> Void
    private unowned let loop: EventLoop
    private var state = State.idle
    private var total = 0

    private enum State { case idle, accepting, resting, stopped }

    /// Most connections accepted per turn, for fairness to open ones.
    private static let batch = 64
    /// How long accepting pauses after exhaustion, unless a connection ends.
    private static let rest = Duration.milliseconds(100)

    /// - Parameters:
    ///   - isShared: whether other processes poll the same socket; then only one is woken
    ///     (`EPOLLEXCLUSIVE`).
    ///   - accepted: called with each connection: non-blocking, close-on-exec.
    ///   - refused: called when a connection was closed for lack of descriptors, at most once per
    ///     pause.
    package init(
        descriptor: Int32, isShared: Bool, loop: EventLoop, accepted: @escaping (consuming OwnedDescriptor, SocketAddress) -> Void,
        refused: @escaping (SystemError) -> Void
    ) {
        self.descriptor = descriptor
        self.loop = loop
        self.accepted = accepted
        self.refused = refused
        interest = isShared ? [.readable, .exclusive] : .readable
        super.init()
        spare = makeSpare()
    }

    package func start() throws(SystemError) {
        try loop.add(self, descriptor: descriptor, for: interest)
        state = .accepting
    }

    /// Stops accepting. Queued connections stay for other processes with the same socket.
    package func stop() {
        guard state != .stopped else { return }
        state = .stopped
        loop.remove(self, descriptor: descriptor)
        loop.cancel(self)
    }

    /// Suspends accepting until `resume`; new connections stay in the queue.
    package func hold() {
        guard state == .accepting else { return }
        loop.remove(self, descriptor: descriptor)
        state = .resting
    }

    /// Resumes accepting at once, after a descriptor or a connection slot became free.
    package func resume() {
        guard state == .resting else { return }
        loop.cancel(self)
        timerFired(at: loop.now)
    }

    /// Accepts all queued connections before `stop`, when no other process will.
    package func acceptWaiting() {
        var taken: Int
        repeat {
            taken = total
            ready(.readable, in: loop)
        } while total != taken
    }

    package override func ready(_ readiness: Readiness, in loop: EventLoop) {
        for _ in 0..<Self.batch {
            guard state == .accepting else { return }
            do throws(SystemError) {
                switch try Socket.accept(descriptor) {
                case .done(let (number, peer)):
                    total &+= 1
                    accepted(OwnedDescriptor(rawValue: number), peer)
                case .wouldBlock: return
                }
            } catch {
                switch error.code {
                case EMFILE, ENFILE, ENOBUFS, ENOMEM: return exhausted(error)
                // The connection was reset in the queue (accept(2): "treat them like EAGAIN by
                // retrying").
                default: continue
                }
            }
        }
    }

    private func exhausted(_ error: SystemError) {
        refused(error)
        if spare != nil {
            spare = nil
            if case .done(let refused)? = try? Socket.accept(descriptor) { _ = OwnedDescriptor(rawValue: refused.descriptor) }
            spare = makeSpare()
        }
        loop.remove(self, descriptor: descriptor)
        state = .resting
        loop.schedule(self, after: Self.rest)
    }

    package override func timerFired(at now: MonotonicTime) {
        guard state == .resting else { return }
        if spare == nil { spare = makeSpare() }
        do {
            try start()
        } catch {
            loop.schedule(self, after: Self.rest)
        }
    }

    /// A duplicate of the event loop's descriptor: in the sandbox no file can be opened.
    private func makeSpare() -> OwnedDescriptor? { loop.descriptors.first.flatMap { try? OwnedDescriptor.duplicate($0) } }
}
