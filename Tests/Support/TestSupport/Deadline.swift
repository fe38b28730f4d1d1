public import Glibc
import Synchronization

/// The moment at which a wait gives up. Tests wait for things to happen, up to a deadline; they never just let time pass.
public struct Deadline: Sendable {
    private let instant: ContinuousClock.Instant

    public init(after duration: Duration) { instant = .now + duration }

    public var hasPassed: Bool { ContinuousClock.now >= instant }

    /// What `poll(2)` wants: milliseconds, rounded up, at least 0.
    public var pollMilliseconds: Int32 {
        let (seconds, attoseconds) = (instant - .now).components
        let milliseconds = seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
        return Int32(clamping: max(0, milliseconds))
    }

    /// Looks every few milliseconds until `condition` holds.
    ///
    /// - Returns: Whether it held in time.
    public func wait(until condition: () throws -> Bool) rethrows -> Bool {
        while true {
            if try condition() { return true }
            if hasPassed { return false }
            Deadline.pause()
        }
    }

    /// Lets the machine do something else for a moment, between two looks at a condition.
    private static func pause() { _ = poll(nil, 0, 2) }
}

/// A test's environment did not do what the test needs.
public struct TestFailure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }

    /// A failed system call.
    public static func call(_ name: String, _ code: Int32 = errno) -> TestFailure {
        TestFailure("\(name): \(String(cString: strerror(code)))")
    }
}

/// Runs something that blocks on a thread of its own, so that the test runner's few threads stay free.
public func onThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        Threads.start { continuation.resume(with: Swift.Result { try body() }) }
    }
}

/// POSIX threads.
public enum Threads {
    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }

    /// Starts a detached thread.
    public static func start(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(Body(body)).toOpaque()
        let result = pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
                return nil
            }, argument)
        precondition(result == 0, "pthread_create: \(result)")
        pthread_detach(thread)
    }

    /// Runs `body` on `count` threads at once and gives their results in order.
    public static func run<Result: Sendable>(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Result) async throws
        -> [Result]
    {
        try await withThrowingTaskGroup(of: (Int, Result).self) { group in
            for index in 0..<count { group.addTask { (index, try await onThread { try body(index) }) } }
            var results: [Int: Result] = [:]
            for try await (index, result) in group { results[index] = result }
            return (0..<count).compactMap { results[$0] }
        }
    }
}

/// Something that is said once, from one thread to others.
public final class Flag: Sendable {
    private let state = Mutex(false)
    public init() {}
    public var isSet: Bool { state.withLock { $0 } }
    public func set() { state.withLock { $0 = true } }
}
