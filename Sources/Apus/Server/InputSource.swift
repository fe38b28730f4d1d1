import ApusPlatform

/// Bytes of a descriptor that may be a terminal, a pipe or a file, read on a context's loop without changing how the descriptor blocks:
/// others, such as the shell, may share it.
package final class InputSource {
    private final class Source: EventSource {
        unowned let owner: InputSource
        init(_ owner: InputSource) { self.owner = owner }
        override func ready(_ readiness: Readiness, in loop: EventLoop) { owner.read() }
        override func timerFired(at now: MonotonicTime) { owner.read() }
    }

    private enum State {
        case paused
        /// The kernel says when something can be read.
        case watched
        /// A regular file, which epoll does not take: it is read a chunk a turn.
        case polled
        case over
    }

    private let descriptor: Int32
    private let loop: EventLoop
    /// Gets each chunk; an empty one is the end, also when it cannot be read any more.
    private let received: ([UInt8]) -> Void
    private var state = State.paused
    private lazy var source = Source(self)

    private static let chunkBytes = 64 * 1024

    /// Starts paused.
    package init(_ descriptor: Int32, in context: Context, received: @escaping ([UInt8]) -> Void) {
        self.descriptor = descriptor
        self.received = received
        loop = context.loop
    }

    deinit {
        switch state {
        case .watched, .polled: loop.remove(source, descriptor: descriptor)
        case .paused, .over: break
        }
    }

    package func resume() {
        guard case .paused = state else { return }
        do throws(SystemError) {
            try loop.add(source, descriptor: descriptor, for: .readable)
            state = .watched
        } catch {
            state = .polled
            loop.schedule(source, at: loop.now)
        }
    }

    package func pause() {
        switch state {
        case .watched, .polled:
            loop.remove(source, descriptor: descriptor)
            state = .paused
        case .paused, .over: break
        }
    }

    package func cancel() {
        pause()
        state = .over
    }

    private func read() {
        let bytes: [UInt8]
        do throws(SystemError) {
            switch try FileSystem.readSome(descriptor, maxBytes: Self.chunkBytes) {
            case .done(let some): bytes = some
            case .wouldBlock: return
            }
        } catch {
            bytes = []
        }
        if bytes.isEmpty { cancel() } else if case .polled = state { loop.schedule(source, at: loop.now) }
        received(bytes)
    }
}

/// SIGINT and SIGTERM as events of a context's loop. The second one has its usual effect.
package final class InterruptSource: EventSource {
    private let descriptor: OwnedDescriptor
    private let loop: EventLoop
    private let interrupted: () -> Void

    private static let signals = [Signal.interrupt, Signal.terminate]

    /// - Throws: `ConfigurationError`.
    package init(in context: Context, interrupted: @escaping () -> Void) throws(ConfigurationError) {
        loop = context.loop
        self.interrupted = interrupted
        do {
            descriptor = try Signal.descriptor(for: Self.signals)
            super.init()
            try loop.add(self, descriptor: descriptor.rawValue, for: .readable)
        } catch {
            throw .system("\(error)")
        }
    }

    package override func ready(_ readiness: Readiness, in loop: EventLoop) {
        guard Signal.next(from: descriptor.rawValue) != nil else { return }
        loop.remove(self, descriptor: descriptor.rawValue)
        Signal.unblock(Self.signals)
        interrupted()
    }
}
