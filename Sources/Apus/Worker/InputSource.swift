import ApusPlatform

/// Reads a descriptor that may be a terminal, a pipe or a file on a worker's loop, without
/// `O_NONBLOCK`: other processes, such as the shell, may share the file description.
package final class InputSource {
    private enum State {
        case paused
        /// Registered with the poller.
        case watched
        /// A regular file, which epoll rejects: read one chunk per turn.
        case polled
        case over
    }

    private let descriptor: Int32
    private let loop: EventLoop
    /// Called with each chunk; an empty one means end of file or a read error.
    private let received: ([UInt8]) -> Void
    private var state = State.paused
    private lazy var source = ClosureSource { [unowned self] _, _ in read() }
    private lazy var nextRead = ClosureTimer { [unowned self] _, _ in read() }

    private static let chunkBytes = 64 * 1024

    /// Creates a paused source.
    package init(_ descriptor: Int32, in worker: Worker, received: @escaping ([UInt8]) -> Void) {
        self.descriptor = descriptor
        self.received = received
        loop = worker.loop
    }

    deinit {
        switch state {
        case .watched: loop.remove(source, descriptor: descriptor)
        case .polled: loop.cancel(nextRead)
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
            loop.schedule(nextRead, at: loop.now)
        }
    }

    package func pause() {
        switch state {
        case .watched: loop.remove(source, descriptor: descriptor)
        case .polled: loop.cancel(nextRead)
        case .paused, .over: return
        }
        state = .paused
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
        if bytes.isEmpty { cancel() } else if case .polled = state { loop.schedule(nextRead, at: loop.now) }
        received(bytes)
    }
}

/// SIGINT and SIGTERM as events of a worker's loop. The second signal has its default effect.
package final class InterruptSource: EventSource {
    private let descriptor: OwnedDescriptor
    private let loop: EventLoop
    private let interrupted: () -> Void

    private static let signals = [Signal.interrupt, Signal.terminate]

    /// - Throws: `ConfigurationError` if the signals cannot be watched.
    package init(in worker: Worker, interrupted: @escaping () -> Void) throws(ConfigurationError) {
        loop = worker.loop
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
