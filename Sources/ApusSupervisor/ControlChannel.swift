package import ApusPlatform

/// What a worker is told: by the master over the control channel, or by a person's signal to its pid.
package enum WorkerCommand: Equatable, Sendable {
    /// Nobody will accept from this worker's listeners any more: take what waits there, finish what is under way, then end (QUIT).
    case drain
    /// End now (TERM).
    case stop
    /// The master is gone, nobody will start a successor: drain and end. Never travels; the channel's end means it.
    case masterDied
    /// Others accept from the listeners now, but for those at these places, which nobody will any more: finish what is under way, then end.
    case handOver(closing: [Int])
    /// Something that the application's master tells its workers: see `Supervisor.tell`.
    case application([UInt8])
    /// Accept for another slot, whose worker does not: from the sockets that come with the record, one for each of these places of addresses.
    case adopt(slot: Int, places: [Int])
    /// The slot's own worker accepts again.
    case release(slot: Int)
    /// Close this peer's connections, whatever their ports, and those that come from it until then.
    case turnAway(SocketAddress, until: MonotonicTime)
    /// Log from this level on.
    case logLevel(UInt8)

    /// What a record may have at most, in bytes.
    static let maxRecordBytes = 512 * 1024

    private enum Tag {
        static let drain: UInt8 = 1
        static let stop: UInt8 = 2
        static let handOver: UInt8 = 4
        static let application: UInt8 = 5
        static let adopt: UInt8 = 6
        static let release: UInt8 = 7
        static let turnAway: UInt8 = 8
        static let logLevel: UInt8 = 9
    }

    var record: [UInt8] {
        switch self {
        case .drain: [Tag.drain]
        case .stop: [Tag.stop]
        case .masterDied: preconditionFailure("the channel's end says so")
        case .application(let bytes): [Tag.application] + bytes
        case .handOver(let closing): [Tag.handOver] + Self.bytes(of: closing)
        case .adopt(let slot, let places): [Tag.adopt] + Self.bytes(of: [slot] + places)
        case .release(let slot): [Tag.release] + Self.bytes(of: [slot])
        case .logLevel(let level): [Tag.logLevel, level]
        case .turnAway(let peer, let end): [Tag.turnAway] + Array("\(end.milliseconds) \(peer)".utf8)
        }
    }

    /// Two bytes a number.
    private static func bytes(of numbers: [Int]) -> [UInt8] {
        numbers.flatMap { [UInt8(truncatingIfNeeded: $0 >> 8), UInt8(truncatingIfNeeded: $0)] }
    }

    /// Of a record, behind its tag; nil if a byte is left over.
    private static func numbers(in record: [UInt8]) -> [Int]? {
        guard record.count % 2 == 1 else { return nil }
        return stride(from: 1, to: record.count, by: 2).map { Int(record[$0]) << 8 | Int(record[$0 + 1]) }
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
        case Tag.turnAway:
            let words = String(decoding: record.dropFirst(), as: UTF8.self).split(separator: " ")
            guard words.count == 2, let end = UInt64(words[0]), let peer = SocketAddress(parsing: words[1]) else { return nil }
            self = .turnAway(peer, until: MonotonicTime(milliseconds: end))
        default: return nil
        }
    }
}

/// What a worker says to the master.
enum WorkerReport: Equatable {
    /// It serves.
    case ready
    /// It cannot go on, and will end; the text is for the log.
    case failed(reason: String)
    /// It wrote this to standard error, which may tell why it dies.
    case wrote(String)
    /// Something for the log that its process could not log itself.
    case noted(String)

    private static let readyTag = UInt8(ascii: "R")
    private static let failedTag = UInt8(ascii: "F")
    static let wroteTag = UInt8(ascii: "W")
    static let notedTag = UInt8(ascii: "N")
    /// A reason is cut here, so that a record always fits the reader's buffer. Bytes.
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

    /// Who has taken a worker over must not write lines of the master's log: it stays one. A text may have been cut inside a character:
    /// decoding repairs it.
    private static func line(_ bytes: ArraySlice<UInt8>) -> String {
        String(decoding: bytes.map { $0 < 0x20 || $0 == 0x7f ? UInt8(ascii: " ") : $0 }, as: UTF8.self)
    }
}

/// One end of a worker's `SOCK_SEQPACKET` pair. Records are rare, and but for the application's tiny, so none is ever queued: a peer whose buffer is
/// full has not read for hundreds of records and will be ended by its deadline, not by words.
struct ControlChannel: ~Copyable {
    enum Received: Equatable {
        case record([UInt8])
        case nothing
        /// The other process has ended, or closed its end.
        case closed
    }

    private let end: OwnedDescriptor
    /// What a record from the other end has at most, in bytes; the rest of a longer one is lost.
    private let maxRecordBytes: Int

    init(_ end: consuming OwnedDescriptor, maxRecordBytes: Int = 1 + WorkerReport.maxReasonBytes) {
        self.end = end
        self.maxRecordBytes = maxRecordBytes
    }

    var descriptor: Int32 { end.rawValue }

    /// Records of this size need no larger buffer than sockets have, in bytes.
    private static let usualBytes = 32 * 1024

    /// Sends a record with descriptors, at most `Socket.maxPassed`; false as `send`.
    func send(_ record: [UInt8], passing descriptors: [Int32]) -> Bool {
        if case .done? = try? Socket.send(end.rawValue, record, passing: descriptors) { true } else { false }
    }

    /// Sends a record; false when the other end is gone or does not read.
    @discardableResult
    func send(_ record: [UInt8]) -> Bool {
        let number = end.rawValue
        if record.count > Self.usualBytes { Self.makeRoom(for: Int32(clamping: 2 * record.count), in: number) }
        do {
            return
                switch try unsafe record.withUnsafeBytes({ bytes throws(SystemError) in try unsafe Socket.send(number, bytes) })
            {
            case .done: true
            case .wouldBlock: false
            }
        } catch {
            return false
        }
    }

    private static func makeRoom(for bytes: Int32, in socket: Int32) {
        do { try Socket.set(.sendBufferForced(bytes), on: socket) } catch { try? Socket.set(.sendBuffer(bytes), on: socket) }
    }

    func receive() -> Received { Self.receive(from: end.rawValue, maxRecordBytes) }

    /// Receives a record with what descriptors came with it, which are the caller's to close. A master never does: it would take what a worker
    /// pleases to send.
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
