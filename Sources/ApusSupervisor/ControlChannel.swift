package import ApusPlatform

/// An order to a worker: from the master over the control channel, or by a signal to its pid.
package enum WorkerCommand: Equatable, Sendable {
    /// No process will accept from this worker's listeners any more: accept what waits there,
    /// complete what is under way, then end (QUIT).
    case drain
    /// End now (TERM).
    case stop
    /// The master has died, so no successor will start: drain and end. Never sent; the end of the
    /// channel means it.
    case masterDied
    /// Other processes accept from the listeners now, except those at these indices, which no
    /// process will use: complete what is under way, then end.
    case handOver(closing: [Int])
    /// A record of the application: see `Supervisor.sendToWorkers`.
    case application([UInt8])
    /// Accept for another slot, whose worker does not, from the sockets that come with the record:
    /// one for each of these indices of addresses.
    case adopt(slot: Int, places: [Int])
    /// The slot's own worker accepts again.
    case release(slot: Int)
    /// Close the connections of this peer, from all its ports, and refuse new ones.
    case quarantine(SocketAddress, until: MonotonicTime)
    /// Log from this level on.
    case logLevel(UInt8)

    /// Upper limit on a record. Bytes.
    static let maxRecordBytes = 512 * 1024

    private enum Tag {
        static let drain: UInt8 = 1
        static let stop: UInt8 = 2
        static let handOver: UInt8 = 4
        static let application: UInt8 = 5
        static let adopt: UInt8 = 6
        static let release: UInt8 = 7
        static let quarantine: UInt8 = 8
        static let logLevel: UInt8 = 9
    }

    var record: [UInt8] {
        switch self {
        case .drain: [Tag.drain]
        case .stop: [Tag.stop]
        case .masterDied: preconditionFailure("the end of the channel means it")
        case .application(let bytes): [Tag.application] + bytes
        case .handOver(let closing): [Tag.handOver] + Self.bytes(of: closing)
        case .adopt(let slot, let places): [Tag.adopt] + Self.bytes(of: [slot] + places)
        case .release(let slot): [Tag.release] + Self.bytes(of: [slot])
        case .logLevel(let level): [Tag.logLevel, level]
        case .quarantine(let peer, let end):
            [Tag.quarantine] + Array("\(end.milliseconds) \(peer)".utf8)
        }
    }

    /// Two bytes per number, the high one first.
    private static func bytes(of numbers: [Int]) -> [UInt8] {
        numbers.flatMap { [UInt8(truncatingIfNeeded: $0 >> 8), UInt8(truncatingIfNeeded: $0)] }
    }

    /// The numbers behind the tag; nil if a byte is left over.
    private static func numbers(in record: [UInt8]) -> [Int]? {
        guard record.count % 2 == 1 else { return nil }
        return stride(from: 1, to: record.count, by: 2).map {
            Int(record[$0]) << 8 | Int(record[$0 + 1])
        }
    }

    /// Nil for a record that no master of this version sends.
    init?(record: [UInt8]) {
        switch record.first {
        case Tag.drain where record.count == 1: self = .drain
        case Tag.stop where record.count == 1: self = .stop
        case Tag.application: self = .application(Array(record.dropFirst()))
        case Tag.handOver:
            guard let places = Self.numbers(in: record) else { return nil }
            self = .handOver(closing: places)
        case Tag.adopt:
            guard let numbers = Self.numbers(in: record), let slot = numbers.first else { return nil }
            self = .adopt(slot: slot, places: Array(numbers.dropFirst()))
        case Tag.release:
            guard let numbers = Self.numbers(in: record), numbers.count == 1 else { return nil }
            self = .release(slot: numbers[0])
        case Tag.logLevel where record.count == 2: self = .logLevel(record[1])
        case Tag.quarantine:
            let words = String(decoding: record.dropFirst(), as: UTF8.self).split(separator: " ")
            guard words.count == 2, let end = UInt64(words[0]), let peer = SocketAddress(parsing: words[1])
            else { return nil }
            self = .quarantine(peer, until: MonotonicTime(milliseconds: end))
        default: return nil
        }
    }
}

/// A report of a worker to the master.
enum WorkerReport: Equatable {
    /// It serves.
    case ready
    /// It cannot continue and will end. The text is for the log.
    case failed(reason: String)
    /// It wrote this line to standard error, which may explain its death.
    case wrote(String)
    /// A line for the log that its process could not log itself.
    case noted(String)

    private static let readyTag = UInt8(ascii: "R")
    private static let failedTag = UInt8(ascii: "F")
    static let wroteTag = UInt8(ascii: "W")
    static let notedTag = UInt8(ascii: "N")
    /// Longer texts are truncated, so that a record fits the buffer of the reader. Bytes.
    static let maxReasonBytes = 1000

    var record: [UInt8] {
        switch self {
        case .ready: [Self.readyTag]
        case .failed(let reason): [Self.failedTag] + reason.utf8.prefix(Self.maxReasonBytes)
        case .wrote(let text): [Self.wroteTag] + text.utf8.prefix(Self.maxReasonBytes)
        case .noted(let text): [Self.notedTag] + text.utf8.prefix(Self.maxReasonBytes)
        }
    }

    /// Nil for a record that no worker of this version sends.
    init?(record: [UInt8]) {
        switch record.first {
        case Self.readyTag where record.count == 1: self = .ready
        case Self.failedTag: self = .failed(reason: Self.line(record.dropFirst()))
        case Self.wroteTag: self = .wrote(Self.line(record.dropFirst()))
        case Self.notedTag: self = .noted(Self.line(record.dropFirst()))
        default: return nil
        }
    }

    /// Replaces control characters: a compromised worker must not forge lines of the log. Decoding
    /// repairs a character that was truncated.
    private static func line(_ bytes: ArraySlice<UInt8>) -> String {
        let printable = bytes.map { $0 < 0x20 || $0 == 0x7f ? UInt8(ascii: " ") : $0 }
        return String(decoding: printable, as: UTF8.self)
    }
}

/// One end of a worker's `SOCK_SEQPACKET` pair.
///
/// Records are rare, and tiny except for the application's, so none is ever queued: a peer whose
/// buffer is full has not read for hundreds of records, and its deadline will end it.
struct ControlChannel: ~Copyable {
    enum Received: Equatable {
        case record([UInt8])
        case nothing
        /// The other process has ended, or has closed its end.
        case closed
    }

    private let end: OwnedDescriptor
    /// Upper limit on a record from the other end; the rest of a longer one is lost. Bytes.
    private let maxRecordBytes: Int

    init(_ end: consuming OwnedDescriptor, maxRecordBytes: Int = 1 + WorkerReport.maxReasonBytes) {
        self.end = end
        self.maxRecordBytes = maxRecordBytes
    }

    var descriptor: Int32 { end.rawValue }

    /// Records up to this size fit the buffer that a socket has by default. Bytes.
    private static let usualBytes = 32 * 1024

    /// Sends a record with descriptors, at most `Socket.maxPassed`.
    ///
    /// - Returns: As `send`.
    func send(_ record: [UInt8], passing descriptors: [Int32]) -> Bool {
        let result = try? Socket.send(end.rawValue, record, passing: descriptors)
        return if case .done? = result { true } else { false }
    }

    /// Sends a record.
    ///
    /// - Returns: False if the other end is closed or its buffer is full.
    @discardableResult
    func send(_ record: [UInt8]) -> Bool {
        let number = end.rawValue
        if record.count > Self.usualBytes { Self.enlargeBuffer(of: number, to: Int32(clamping: 2 * record.count)) }
        do {
            let result = try unsafe record.withUnsafeBytes { bytes throws(SystemError) in
                try unsafe Socket.send(number, bytes)
            }
            return if case .done = result { true } else { false }
        } catch {
            return false
        }
    }

    private static func enlargeBuffer(of socket: Int32, to bytes: Int32) {
        do {
            try Socket.set(.sendBufferForced(bytes), on: socket)
        } catch {
            try? Socket.set(.sendBuffer(bytes), on: socket)
        }
    }

    func receive() -> Received { Self.receive(from: end.rawValue, maxRecordBytes) }

    /// Receives a record and the descriptors that came with it, which the caller must close. Not
    /// used in the master: it would own whatever descriptors a compromised worker sends.
    func receive(passed: inout [Int32]) -> Received {
        let number = end.rawValue
        let most = maxRecordBytes
        return unsafe Self.received(within: most) { buffer throws(SystemError) in
            try unsafe Socket.receive(number, into: buffer, passed: &passed)
        }
    }

    static func receive(from number: Int32, _ maxRecordBytes: Int = 1 + WorkerReport.maxReasonBytes) -> Received {
        unsafe received(within: maxRecordBytes) { buffer throws(SystemError) in try unsafe Socket.receive(number, into: buffer) }
    }

    private static func received(
        within maxRecordBytes: Int, _ receive: (UnsafeMutableRawBufferPointer) throws(SystemError) -> IOResult<Int>
    ) -> Received {
        unsafe withUnsafeTemporaryAllocation(byteCount: maxRecordBytes, alignment: 1) { buffer in
            do {
                switch try unsafe receive(buffer) {
                case .done(0): return .closed
                case .done(let count): return .record(unsafe Array(buffer[..<count]))
                case .wouldBlock: return .nothing
                }
            } catch {
                // ECONNRESET: the other end was closed with records unread.
                return .closed
            }
        }
    }
}
