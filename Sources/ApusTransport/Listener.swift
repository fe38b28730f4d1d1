package import ApusPlatform
import Glibc

/// Accepts connections from one listening socket, in bounded loops, and survives running out of descriptors.
///
/// When the process has none left, the listener gives up a spare descriptor to take the connection that waits and closes it at
/// once, so that its client learns of it; then it rests instead of spinning on a readiness that it cannot serve.
package final class Listener: EventSource {
    /// Borrowed: the slot's owner closes it.
    package let descriptor: Int32
    private let interest: Readiness
    private var spare: OwnedDescriptor?
    private let accepted: (consuming OwnedDescriptor, SocketAddress) -> Void
    private let refused: (SystemError) -> Void
    private unowned let loop: EventLoop
    private var state = State.idle
    private var total = 0

    private enum State { case idle, accepting, resting, stopped }

    /// Connections taken in one turn before others get theirs.
    private static let batch = 64
    /// How long it rests when the process or system is out of resources and no connection ends.
    private static let rest = Duration.milliseconds(100)

    /// - Parameters:
    ///   - isShared: other processes wait on the same socket, so only one is to be woken.
    ///   - accepted: gets each connection: non-blocking, close-on-exec.
    ///   - refused: is told when a connection had to be turned away, at most once per rest.
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

    /// Accepts no more. What waits in the queue stays there for whoever else holds the socket.
    package func stop() {
        guard state != .stopped else { return }
        state = .stopped
        loop.remove(self, descriptor: descriptor)
        loop.cancel(self)
    }

    /// Accepts no more until `resume`; what comes waits in the queue.
    package func hold() {
        guard state == .accepting else { return }
        loop.remove(self, descriptor: descriptor)
        state = .resting
    }

    /// A descriptor or a place became free: a resting listener goes on at once.
    package func resume() {
        guard state == .resting else { return }
        loop.cancel(self)
        timerFired(at: loop.now)
    }

    /// Takes everything that waits in the queue, before `stop`: nobody else will.
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
                // The peer has gone meanwhile (accept(2): "treat them like EAGAIN by retrying").
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

    /// A second number for the loop's descriptor: a sandbox lets nothing be opened.
    private func makeSpare() -> OwnedDescriptor? { loop.descriptors.first.flatMap { try? OwnedDescriptor.duplicate($0) } }
}
