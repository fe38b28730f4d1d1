import ApusPlatform
import Synchronization

/// Sends to the workers from a process without a mailbox: the master, or one that it forked. Any
/// thread may use it.
///
/// It has no loop and therefore no queue: what does not fit a mailbox is dropped, counted, and
/// reported to that worker as a gap.
package final class ExternalSender: Sendable {
    private struct State {
        /// Gaps to report, by mailbox, with the process that each is for.
        var gaps: [(lost: UInt32, receiver: UInt32)]
        var dropped = 0
    }

    private let mailboxes: Mailboxes
    private let interest: InterestTable
    private let state: Mutex<State>

    package init(_ mailboxes: Mailboxes, _ interest: InterestTable) {
        self.mailboxes = mailboxes
        self.interest = interest
        state = Mutex(State(gaps: Array(repeating: (0, 0), count: mailboxes.places)))
    }

    /// Records that this process dropped.
    package var recordsDropped: Int { state.withLock { $0.dropped } }

    /// Sends a publication to every worker with subscribers.
    ///
    /// - Returns: whether all of them will receive it.
    package func publish(topic: borrowing RawSpan, hash: UInt32, isText: Bool, payload: borrowing RawSpan) -> Bool {
        let record = PacketBuffer(capacity: Packet.recordHeaderBytes + topic.byteCount + payload.byteCount)
        record.appendPublication(topic: topic, hash: hash, isText: isText, payload: payload)
        return send(record) { interest.isInterested($0, topicHash: hash) }
    }

    package func signal(protocolIndex: Int, _ signal: UInt32, payload: borrowing RawSpan) -> Bool {
        let record = PacketBuffer(capacity: Packet.recordHeaderBytes + payload.byteCount)
        record.appendSignal(protocolIndex: UInt16(protocolIndex), signal: signal, payload: payload)
        return send(record) { interest.isInterested($0, protocolIndex: protocolIndex) }
    }

    package func request(_ request: InterestTable.Request, protocolIndex: Int) {
        for place in 0..<mailboxes.places where interest.isInterested(place, protocolIndex: protocolIndex) {
            if interest.set(request, protocolIndex: protocolIndex, in: place) { mailboxes.waker(of: place).wakeUp() }
        }
    }

    private func send(_ record: PacketBuffer, where isInterested: (Int) -> Bool) -> Bool {
        // Locked as a whole, so that another thread's records do not come between the parts.
        state.withLock { state in
            var isComplete = true
            for place in 0..<mailboxes.places where isInterested(place) {
                let receiver = interest.generation(of: place)
                if state.gaps[place].receiver != receiver { state.gaps[place] = (0, receiver) }
                if send(record, to: place, &state.gaps[place]) { continue }
                state.gaps[place].lost.addUpToMax(1)
                state.dropped += 1
                isComplete = false
            }
            return isComplete
        }
    }

    private func send(_ record: PacketBuffer, to place: Int, _ gap: inout (lost: UInt32, receiver: UInt32)) -> Bool {
        let bytes = unsafe RawSpan(_unsafeBytes: record.bytes)
        let packet = PacketBuffer(capacity: min(Packet.maxBytes, Packet.headerBytes + Packet.recordHeaderBytes + bytes.byteCount))
        var start = 0
        while start < bytes.byteCount {
            packet.begin(
                .init(sender: Packet.externalSender, lost: gap.lost, process: UInt32(bitPattern: Process.id), receiver: gap.receiver))
            if bytes.byteCount <= Packet.room {
                packet.append(encoded: bytes)
                start = bytes.byteCount
            } else {
                let end = min(bytes.byteCount, start + Packet.room - Packet.recordHeaderBytes)
                packet.appendPart(offset: UInt32(start), isLast: end == bytes.byteCount, bytes.extracting(start..<end))
                start = end
            }
            guard case .done? = try? unsafe Socket.send(mailboxes.sending(to: place), packet.bytes) else { return false }
            gap.lost = 0
        }
        return true
    }
}
