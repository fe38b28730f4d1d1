import CLinux
import Glibc
import Synchronization
import Testing

@testable import ApusPlatform

/// Counts its events and does in them what a test wants.
final class Listening: EventSource {
    let descriptor: Int32
    var events: [Readiness] = []
    var reaction: (Listening) -> Void = { _ in }
    init(_ descriptor: Int32) { self.descriptor = descriptor }
    override func ready(_ readiness: Readiness, in loop: EventLoop) {
        events.append(readiness)
        reaction(self)
    }
}

final class Ticker: TimerNode {
    var fired: [MonotonicTime] = []
    var reaction: (Ticker, MonotonicTime) -> Void = { _, _ in }
    override func timerFired(at now: MonotonicTime) {
        fired.append(now)
        reaction(self, now)
    }
}

/// Two connected sockets that close with it.
final class Pair {
    let ours: OwnedDescriptor
    let theirs: OwnedDescriptor
    init() throws {
        let ends = try Socket.packetPair().release()
        ours = OwnedDescriptor(rawValue: ends.first)
        theirs = OwnedDescriptor(rawValue: ends.second)
    }
    func makeReadable() throws {
        let byte: [UInt8] = [1]
        _ = try byte.withUnsafeBytes { try Socket.send(theirs.rawValue, $0) }
    }
}

@Suite("Event loop", .timeLimit(.minutes(1)))
struct EventLoopTests {
    let loop: EventLoop
    init() throws { loop = try EventLoop() }

    @Test("of two sources that are ready in one batch, the first removes the second, which then hears nothing")
    func staleEvents() throws {
        let pairs = try [Pair(), Pair()]
        let sources = pairs.map { Listening($0.ours.rawValue) }
        for (index, source) in sources.enumerated() {
            let other = sources[1 - index]
            source.reaction = { [loop] _ in loop.remove(other, descriptor: other.descriptor) }
            try loop.add(source, descriptor: source.descriptor, for: .readable)
            try pairs[index].makeReadable()
        }
        // A pair that is not used below would be closed before, in a release build.
        try withExtendedLifetime(pairs) { try loop.turn(timeout: .seconds(10)) }
        #expect(sources.map(\.events.count).sorted() == [0, 1])
        #expect(sources.count { $0.interest == nil } == 1)
    }

    @Test("a source that nobody else holds lives until the turn that removed it ends, then goes")
    func lifetime() throws {
        let pair = try Pair()
        weak var seen: Listening?
        var wasAliveInside = false
        do {
            let source = Listening(pair.ours.rawValue)
            seen = source
            source.reaction = { [loop] source in
                loop.remove(source, descriptor: source.descriptor)
                wasAliveInside = seen != nil
            }
            try loop.add(source, descriptor: source.descriptor, for: .readable)
        }
        #expect(seen != nil, "the loop holds what it watches")
        try pair.makeReadable()
        try loop.turn(timeout: .seconds(10))
        #expect(wasAliveInside)
        #expect(seen == nil)
    }

    @Test("a descriptor's number may be used again in the turn that removed its source")
    func reusedNumber() throws {
        let first = try Pair()
        let second = try Pair()
        let old = Listening(first.ours.rawValue)
        let new = Listening(first.ours.rawValue)
        old.reaction = { [loop] _ in
            loop.remove(old, descriptor: old.descriptor)
            dup2(second.ours.rawValue, old.descriptor)
            try? loop.add(new, descriptor: new.descriptor, for: .readable)
        }
        try loop.add(old, descriptor: old.descriptor, for: .readable)
        try first.makeReadable()
        try loop.turn(timeout: .seconds(10))
        #expect((old.events.count, new.events.count) == (1, 0))
        try second.makeReadable()
        try loop.turn(timeout: .seconds(10))
        #expect((old.events.count, new.events.count) == (1, 1))
    }

    @Test("readiness is level-triggered, follows the interest, and tells that the peer is gone")
    func interest() throws {
        var pair: Pair? = try Pair()
        let number = dup(pair?.ours.rawValue ?? -1)
        defer { OwnedDescriptor.close(number) }
        let source = Listening(number)
        try loop.add(source, descriptor: number, for: .readable)
        try pair?.makeReadable()
        for _ in 0..<2 { try loop.turn(timeout: .seconds(10)) }
        #expect(source.events == [.readable, .readable])
        try loop.update(source, descriptor: number, for: .writable)
        #expect(source.interest == .writable)
        try loop.turn(timeout: .seconds(10))
        #expect(source.events.last == .writable)
        try loop.update(source, descriptor: number, for: [])
        try loop.turn(timeout: .zero)
        #expect(source.events.count == 3)
        pair = nil
        try loop.turn(timeout: .seconds(10))
        #expect(source.events.last?.isDisjoint(with: .hangUp) == false)
        loop.remove(source, descriptor: number)
    }

    @Test("a wake-up from another thread ends the wait; one that comes early is not lost")
    func wakeUp() throws {
        let waker = loop.waker
        var thread = pthread_t()
        let retained = Unmanaged.passRetained(waker).toOpaque()
        pthread_create(
            &thread, nil,
            { argument in
                argument.map { Unmanaged<Waker>.fromOpaque($0).takeRetainedValue().wakeUp() }
                return nil
            }, retained)
        let start = MonotonicTime.now()
        try loop.turn(timeout: .seconds(30))
        pthread_join(thread, nil)
        #expect(MonotonicTime.now().millisecondsSince(start) < 20_000)

        waker.wakeUp()
        waker.wakeUp()
        try loop.turn(timeout: .seconds(30))
        // Both were taken at once: the next turn waits again.
        let before = MonotonicTime.now()
        try loop.turn(timeout: .milliseconds(20))
        #expect(MonotonicTime.now().millisecondsSince(before) >= 20)
    }

    @Test("jobs from several threads run on the loop's thread, each once and each thread's in order")
    func jobs() throws {
        final class Log: Sendable { let entries = Mutex<[(thread: Int, number: Int)]>([]) }
        final class Producer: Sendable {
            let queue: JobQueue
            let log: Log
            let number: Int
            init(_ queue: JobQueue, _ log: Log, _ number: Int) { (self.queue, self.log, self.number) = (queue, log, number) }
            func run() {
                for index in 0..<1000 { queue.execute { [self] in log.entries.withLock { $0.append((number, index)) } } }
            }
        }
        let log = Log()
        var threads: [pthread_t] = []
        for number in 0..<4 {
            var thread = pthread_t()
            let producer = Unmanaged.passRetained(Producer(loop.jobs, log, number)).toOpaque()
            pthread_create(
                &thread, nil,
                { argument in
                    argument.map { Unmanaged<Producer>.fromOpaque($0).takeRetainedValue().run() }
                    return nil
                }, producer)
            threads.append(thread)
        }
        let deadline = MonotonicTime.now() + .seconds(10)
        while log.entries.withLock(\.count) < 4000, MonotonicTime.now() < deadline { try loop.turn(timeout: .milliseconds(10)) }
        for thread in threads { pthread_join(thread, nil) }
        for number in 0..<4 {
            let isInOrder = log.entries.withLock { $0.filter { $0.thread == number }.map(\.number) } == Array(0..<1000)
            #expect(isInOrder, "thread \(number)")
        }
    }

    @Test("a job that adds another does not hold the loop: that one runs in the next turn")
    func jobsOfJobs() throws {
        let runs = Mutex(0)
        let jobs = loop.jobs
        jobs.execute {
            runs.withLock { $0 += 1 }
            jobs.execute { runs.withLock { $0 += 1 } }
        }
        try loop.turn(timeout: .seconds(10))
        #expect(runs.withLock { $0 } == 1)
        try loop.turn(timeout: .seconds(10))
        #expect(runs.withLock { $0 } == 2)
    }

    @Test("a full queue refuses a job, but not one of Swift's runtime, and takes more after a turn")
    func jobBound() throws {
        let runs = Mutex(0)
        let job: JobQueue.Job = { runs.withLock { $0 += 1 } }
        for _ in 0..<JobQueue.capacity { #expect(loop.jobs.execute(job)) }
        #expect(!loop.jobs.execute(job))
        loop.jobs.executeAlways(job)
        try loop.turn(timeout: .seconds(10))
        #expect(runs.withLock { $0 } == JobQueue.capacity + 1)
        #expect(loop.jobs.execute(job))
    }

    @Test("the bits of interest and readiness are those of poll(2), which epoll shares")
    func bits() {
        #expect(Interest.readable.rawValue == UInt32(POLLIN) && Readiness.readable.rawValue == EPOLLIN.rawValue)
        #expect(Interest.writable.rawValue == UInt32(POLLOUT) && Readiness.writable.rawValue == EPOLLOUT.rawValue)
        #expect(Interest.peerClosed.rawValue == EPOLLRDHUP.rawValue && Readiness.peerClosed.rawValue == EPOLLRDHUP.rawValue)
        #expect(Readiness.hangUp.rawValue == UInt32(POLLERR | POLLHUP))
        #expect(Readiness.hangUp.rawValue == EPOLLERR.rawValue | EPOLLHUP.rawValue)
    }

    @Test("timers fire in order and never early; one may re-arm itself and cancel another")
    func timers() throws {
        let start = MonotonicTime.now()
        let tickers = (0..<4).map { _ in Ticker() }
        let delays: [UInt64] = [30, 10, 20, 25]
        var order: [Int] = []
        for (index, ticker) in tickers.enumerated() {
            ticker.reaction = { _, _ in order.append(index) }
            loop.schedule(ticker, at: MonotonicTime(milliseconds: start.milliseconds + delays[index]))
        }
        tickers[1].reaction = { [loop] ticker, now in
            order.append(1)
            loop.cancel(tickers[3])
            if ticker.fired.count == 1 { loop.schedule(ticker, at: now + .milliseconds(5)) }
        }
        let deadline = start + .seconds(10)
        while order.count < 4, MonotonicTime.now() < deadline { try loop.turn() }
        #expect(order.filter { $0 != 1 } == [2, 0] && order.first == 1 && order.count == 4)
        #expect(tickers[3].fired.isEmpty)
        for (ticker, delay) in zip(tickers, delays) {
            for time in ticker.fired { #expect(time.millisecondsSince(start) >= delay) }
        }
    }

    @Test("removing a source disarms its timer")
    func removeDisarms() throws {
        let pair = try Pair()
        let source = Listening(pair.ours.rawValue)
        try loop.add(source, descriptor: source.descriptor, for: .readable)
        loop.schedule(source, after: .milliseconds(1))
        loop.remove(source, descriptor: source.descriptor)
        #expect(!source.isScheduled)
    }

    @Test("a turn without anything to do ends at its timeout, and with a far timer, too")
    func timeout() throws {
        let far = Ticker()
        loop.schedule(far, at: MonotonicTime(milliseconds: .max))
        let start = MonotonicTime.now()
        try loop.turn(timeout: .milliseconds(15))
        #expect(MonotonicTime.now().millisecondsSince(start) >= 15)
        #expect(far.fired.isEmpty)
        loop.cancel(far)
    }
}
