import ApusPlatform
public import Logging

/// A log file for a server with several processes: only the master writes it. Workers hand their lines over a channel that never blocks
/// them, and need no right to any file. A line that cannot be written (the disk is full, the file as large as it may be) or handed over is
/// lost; how many were is written as soon as there is room again, a second later at most. A worker's lines end with its process number, which
/// the kernel tells, and have no control characters: one that was taken over cannot write the master's lines or another's.
///
///     let log = try LogFile("/var/log/apus.log")
///     LoggingSystem.bootstrap { LogFile.Handler(log, label: $0) }
///     server.logFile = log
///
/// SIGUSR1 opens the file anew, for who rotates logs.
public final class LogFile: @unchecked Sendable {
    /// Where it is written.
    public private(set) var path: String
    private var file: OwnedDescriptor
    /// Where a reload will move it.
    private var nextPath: String?
    private var nextFile: OwnedDescriptor?
    private var channel: Channel
    /// Who writes: the one process, or a worker that hands over.
    private var isWorker = false
    /// Lines that nobody will read, since the last that was written.
    private var lost = 0
    /// The file ends in the middle of a line.
    private var isCut = false

    /// From every worker to the master.
    private final class Channel {
        let sending: OwnedDescriptor
        let receiving: OwnedDescriptor

        /// What the kernel may hold for the master, in bytes.
        private static let bytes: Int32 = 1 << 20

        init() throws(SystemError) {
            let pair = try Socket.packetPair().release()
            sending = OwnedDescriptor(rawValue: pair.first)
            receiving = OwnedDescriptor(rawValue: pair.second)
            try Socket.set(.sendBuffer(Self.bytes), on: pair.first)
            try Socket.tellSenders(pair.second)
        }
    }

    /// Longer lines are cut. Bytes.
    private static let maxLineBytes = 16 * 1024

    /// Opens the file, or makes it.
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
        // A limit on the size of files is an error to count, not a death.
        Signal.ignore(Signal.fileSize)
    }

    /// Checks that there can be such a log, without making it.
    ///
    /// - Throws: `ConfigurationError.file`.
    package static func check(_ path: String) throws(ConfigurationError) {
        do { try FileSystem.checkAppendable(path) } catch { throw .file(path, error.reason) }
    }

    /// Opens the file anew, perhaps at another place: the old one may have been moved away. If that fails the old one stays.
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

    /// Opens the file of another place, to be written once the reload has succeeded that `Server.reload` describes; until then, and if it
    /// does not, lines go where they went.
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

    /// Goes where `prepareMove` said.
    func move() {
        guard let newPath = nextPath, let newFile = nextFile.take() else { return }
        file = newFile
        path = newPath
        nextPath = nil
        isCut = false
    }

    // MARK: In a worker

    /// All that a worker needs of it.
    var workerDescriptor: Int32 { channel.sending.rawValue }

    func becomeWorker() { isWorker = true }

    // MARK: In the master

    /// Takes what workers have handed over, from the master's loop.
    func attach(to loop: EventLoop) throws(SystemError) {
        let reader = Reader(self)
        try watch(with: reader, loop)
        loop.schedule(reader, after: Reader.pause)
    }

    private func watch(with reader: Reader, _ loop: EventLoop) throws(SystemError) {
        try loop.add(reader, descriptor: channel.receiving.rawValue, for: [.readable, .peerClosed])
    }

    /// A worker has shut the channel down, which it shares with the others. Those that run now can hand nothing over any more; those that are
    /// started from now on get a new one.
    private func replaceChannel(of reader: Reader, _ loop: EventLoop) {
        loop.remove(reader, descriptor: channel.receiving.rawValue)
        var outcome = "workers that are started from now on have a new one"
        do {
            channel = try Channel()
            try watch(with: reader, loop)
        } catch {
            outcome = "there is no new one: \(error)"
        }
        write(LogLine.format(.error, "apus", "a worker has shut down the workers' way to the log; \(outcome)", [:]))
    }

    private final class Reader: EventSource {
        private let log: LogFile
        /// Lines taken in one turn: the master has other things to do.
        private static let batch = 256
        fileprivate static let pause = Duration.milliseconds(500)

        init(_ log: LogFile) { self.log = log }

        override func ready(_ readiness: Readiness, in loop: EventLoop) {
            let isShut = !readiness.isDisjoint(with: [.peerClosed, .hangUp])
            for _ in 0..<Self.batch {
                guard
                    case .done((let line, let sender))? = try? Socket.receivePacketWithSender(
                        log.channel.receiving.rawValue, maxBytes: LogFile.maxLineBytes)
                else { break }
                // The end, or a line without a byte.
                if line.isEmpty, isShut {
                    log.replaceChannel(of: self, loop)
                    break
                }
                log.append(line.isEmpty ? [] : LogLine.ofWorker(line, sender))
            }
            loop.schedule(self, after: Self.pause)
        }

        override func timerFired(at now: MonotonicTime) { log.append([]) }
    }

    // MARK: Lines

    /// Writes a line, with its end; never waits.
    func write(_ line: String) {
        var bytes = Array(line.utf8.prefix(Self.maxLineBytes - 1))
        bytes.append(UInt8(ascii: "\n"))
        if isWorker { handOver(bytes) } else { append(bytes) }
    }

    private func handOver(_ line: [UInt8]) {
        if lost > 0 {
            guard sends(Array(LogLine.lost(lost, "a worker could not hand over").utf8)) else { return lost += 1 }
            lost = 0
        }
        if !sends(line) { lost += 1 }
    }

    private func sends(_ line: [UInt8]) -> Bool {
        guard case .done? = try? Socket.send(channel.sending.rawValue, line) else { return false }
        return true
    }

    /// Writes lines that are complete; an empty one only says what was lost before.
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

    /// Writes to a `LogFile`.
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
