import ApusPlatform
public import Logging

/// A log file for a server with several processes. Only the master writes it: workers send their
/// lines over a non-blocking channel and need no access to the file.
///
/// A line that cannot be sent or written (disk full, file size limit) is lost; the number of lost
/// lines is logged once writing works again, at the latest after a second. A worker's line ends
/// with the process number from the kernel and has no control characters, so a compromised worker
/// cannot forge lines of other processes. SIGUSR1 reopens the file, for log rotation.
///
///     let log = try LogFile("/var/log/apus.log")
///     LoggingSystem.bootstrap { LogFile.Handler(log, label: $0) }
///     server.logFile = log
public final class LogFile: @unchecked Sendable {
    /// The path of the file.
    public private(set) var path: String
    private var file: OwnedDescriptor
    /// The path and file of `prepareMove`.
    private var nextPath: String?
    private var nextFile: OwnedDescriptor?
    private var channel: Channel
    /// Whether lines are sent to the master instead of written.
    private var isWorker = false
    /// Lines lost since the last one that was written.
    private var lost = 0
    /// Whether the last line in the file is incomplete.
    private var isCut = false

    /// The channel from all workers to the master.
    private final class Channel {
        let sending: OwnedDescriptor
        let receiving: OwnedDescriptor

        /// The send buffer in the kernel, in bytes.
        private static let bytes: Int32 = 1 << 20

        init() throws(SystemError) {
            let pair = try Socket.packetPair().release()
            sending = OwnedDescriptor(rawValue: pair.first)
            receiving = OwnedDescriptor(rawValue: pair.second)
            try Socket.set(.sendBuffer(Self.bytes), on: pair.first)
            try Socket.tellSenders(pair.second)
        }
    }

    /// Bytes; longer lines are cut.
    private static let maxLineBytes = 16 * 1024

    /// Opens the file for appending, or creates it.
    ///
    /// - Throws: `ConfigurationError.file`.
    public init(_ path: String) throws(ConfigurationError) {
        self.path = path
        do {
            file = try FileSystem.openForAppending(path)
            channel = try Channel()
        } catch {
            throw .file(path, error.reason)
        }
        // Make the file size limit (SIGXFSZ) an error of write(2).
        Signal.ignore(Signal.fileSize)
    }

    /// Checks that the file can be opened for appending or created, without creating it.
    ///
    /// - Throws: `ConfigurationError.file`.
    package static func check(_ path: String) throws(ConfigurationError) {
        do { try FileSystem.checkAppendable(path) } catch { throw .file(path, error.reason) }
    }

    /// Reopens the file, after a rotation or at another path. On an error the open file stays in
    /// use.
    ///
    /// - Throws: `ConfigurationError.file`.
    public func reopen(at newPath: String? = nil) throws(ConfigurationError) {
        do {
            file = try FileSystem.openForAppending(newPath ?? path)
        } catch {
            throw .file(newPath ?? path, error.reason)
        }
        path = newPath ?? path
        isCut = false
    }

    /// Opens another file, used once the reload of `Server.reload` has succeeded. If it fails, the
    /// log stays where it is.
    ///
    /// - Throws: `ConfigurationError.file`.
    public func prepareMove(to newPath: String) throws(ConfigurationError) {
        do {
            nextFile = try FileSystem.openForAppending(newPath)
            nextPath = newPath
        } catch {
            throw .file(newPath, error.reason)
        }
    }

    func forgetMove() {
        nextPath = nil
        nextFile = nil
    }

    /// Switches to the file of `prepareMove`, if any.
    func move() {
        guard let newPath = nextPath, let newFile = nextFile.take() else { return }
        file = newFile
        path = newPath
        nextPath = nil
        isCut = false
    }

    // MARK: In a worker

    /// The only descriptor of the log that a worker keeps.
    var workerDescriptor: Int32 { channel.sending.rawValue }

    func becomeWorker() { isWorker = true }

    // MARK: In the master

    /// Writes the workers' lines, on the master's loop.
    func attach(to loop: EventLoop) throws(SystemError) {
        let retry = ClosureTimer { [self] _, _ in append([]) }
        try watch(in: loop, retry)
        loop.schedule(retry, after: Self.retryInterval)
    }

    /// - Parameter retry: reports lost lines, some time after the last line.
    private func watch(in loop: EventLoop, _ retry: ClosureTimer) throws(SystemError) {
        let source = ClosureSource { [self] source, readiness in
            receiveLines(readiness, source, in: loop, retry)
            loop.schedule(retry, after: Self.retryInterval)
        }
        try loop.add(source, descriptor: channel.receiving.rawValue, for: [.readable, .peerClosed])
    }

    private func receiveLines(_ readiness: Readiness, _ source: ClosureSource, in loop: EventLoop, _ retry: ClosureTimer) {
        let isShut = !readiness.isDisjoint(with: [.peerClosed, .hangUp])
        for _ in 0..<Self.linesPerTurn {
            guard
                case .done((let line, let sender))? = try? Socket.receivePacketWithSender(
                    channel.receiving.rawValue, maxBytes: Self.maxLineBytes)
            else { return }
            // Either the end of the channel or an empty line.
            if line.isEmpty, isShut { return replaceChannel(of: source, in: loop, retry) }
            append(line.isEmpty ? [] : LogLine.ofWorker(line, sender))
        }
    }

    /// Lines read per turn, so that the master's other sources are served.
    private static let linesPerTurn = 256
    private static let retryInterval = Duration.milliseconds(500)

    /// A worker has shut down the channel, which all workers share. Running workers cannot log any
    /// more; workers that start from now on get a new channel.
    private func replaceChannel(of source: ClosureSource, in loop: EventLoop, _ retry: ClosureTimer) {
        loop.remove(source, descriptor: channel.receiving.rawValue)
        var outcome = "new workers get a new one"
        do {
            channel = try Channel()
            try watch(in: loop, retry)
        } catch {
            outcome = "cannot make a new one: \(error)"
        }
        write(LogLine.format(.error, "apus", "a worker has shut down the workers' log channel; \(outcome)", [:]))
    }

    // MARK: Lines

    /// Writes or sends a line without waiting; adds the line feed.
    func write(_ line: String) {
        var bytes = Array(line.utf8.prefix(Self.maxLineBytes - 1))
        bytes.append(UInt8(ascii: "\n"))
        if isWorker { handOver(bytes) } else { append(bytes) }
    }

    private func handOver(_ line: [UInt8]) {
        if lost > 0 {
            guard sends(Array(LogLine.lost(lost, "a worker could not send them to the master").utf8)) else { return lost += 1 }
            lost = 0
        }
        if !sends(line) { lost += 1 }
    }

    private func sends(_ line: [UInt8]) -> Bool {
        guard case .done? = try? Socket.send(channel.sending.rawValue, line) else { return false }
        return true
    }

    /// Writes complete lines; an empty array only reports the lost ones.
    private func append(_ line: [UInt8]) {
        if lost > 0 {
            guard isWritten(Array(LogLine.lost(lost, "could not be written").utf8)) else {
                if !line.isEmpty { lost += 1 }
                return
            }
            lost = 0
        }
        if !line.isEmpty, !isWritten(line) { lost += 1 }
    }

    private func isWritten(_ line: [UInt8]) -> Bool {
        let bytes = isCut ? [UInt8(ascii: "\n")] + line : line
        guard case .done(let count)? = try? FileSystem.write(file.rawValue, bytes), count > 0 else { return false }
        isCut = count < bytes.count
        return !isCut
    }

    /// A log handler that writes to a `LogFile`.
    public struct Handler: LogHandler {
        private let file: LogFile
        private let label: String
        private var ownLevel = Logger.Level.info
        public var logLevel: Logger.Level {
            get { LogLevelOverride.level ?? ownLevel }
            set { ownLevel = newValue }
        }
        public var metadata = Logger.Metadata()

        public init(_ file: LogFile, label: String) {
            self.file = file
            self.label = label
        }

        public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        public func log(event: LogEvent) {
            file.write(LogLine.format(event.level, label, "\(event.message)", metadata.merging(event.metadata ?? [:]) { $1 }))
        }
    }
}
