import ApusPlatform
import Testing

@testable import ApusSupervisor

@Suite("Control channel")
struct ControlChannelTests {
    @Test(
        "reports are decoded as they were encoded, long reasons truncated",
        arguments: [
            (WorkerReport.ready, WorkerReport.ready), (.failed(reason: ""), .failed(reason: "")),
            (.failed(reason: "grün"), .failed(reason: "grün")),
            (.wrote("Fatal error: grün"), .wrote("Fatal error: grün")),
            (.failed(reason: String(repeating: "x", count: 5000)), .failed(reason: String(repeating: "x", count: 1000))),
        ])
    func reports(sent: WorkerReport, received: WorkerReport) throws {
        let pair = try Socket.packetPair().release()
        let worker = ControlChannel(OwnedDescriptor(rawValue: pair.first))
        let master = ControlChannel(OwnedDescriptor(rawValue: pair.second))
        let isSent = worker.send(sent.record)
        #expect(isSent)
        #expect(master.receive() == .record(sent.record))
        #expect(WorkerReport(record: sent.record) == received)
        #expect(master.receive() == .nothing)
    }

    @Test(
        "an order to hand over has the indices to close, of as many listeners as there may be",
        arguments: [[], [0], [255, 256, 1000, 65_535], Array(0..<3000)])
    func places(closing: [Int]) {
        #expect(WorkerCommand(record: WorkerCommand.handOver(closing: closing).record) == .handOver(closing: closing))
    }

    @Test("listeners of another slot come with the order to accept from them", arguments: [0, 1, 128])
    func adoption(count: Int) throws {
        let pair = try Socket.packetPair().release()
        let worker = ControlChannel(OwnedDescriptor(rawValue: pair.first), maxRecordBytes: WorkerCommand.maxRecordBytes)
        let master = ControlChannel(OwnedDescriptor(rawValue: pair.second))
        let order = WorkerCommand.adopt(slot: 1000, places: Array(0..<count))
        #expect(WorkerCommand(record: order.record) == order)
        let isSent = master.send(order.record, passing: [Int32](repeating: worker.descriptor, count: count))
        #expect(isSent == (count > 0))
        guard isSent else { return }
        var passed: [Int32] = []
        #expect(worker.receive(passed: &passed) == .record(order.record))
        #expect(passed.count == count && Set(passed).count == count)
        for descriptor in passed { OwnedDescriptor.close(descriptor) }
    }

    @Test("descriptors that a worker sends are not kept by its master")
    func uninvited() throws {
        let pair = try Socket.packetPair().release()
        let worker = ControlChannel(OwnedDescriptor(rawValue: pair.first))
        let master = ControlChannel(OwnedDescriptor(rawValue: pair.second))
        let other = try Socket.packetPair().release()
        let isSent = worker.send(WorkerReport.ready.record, passing: [other.first])
        OwnedDescriptor.close(other.first)
        #expect(isSent)
        #expect(master.receive() == .record(WorkerReport.ready.record))
        // Nobody holds the other end any more.
        let end = ControlChannel(OwnedDescriptor(rawValue: other.second))
        #expect(end.receive() == .closed)
    }

    @Test(
        "a truncated order is rejected",
        arguments: [[6], [6, 0], [6, 0, 1, 0], [7], [7, 0], [7, 0, 1, 0, 2], [4, 1], [8], [1, 0]] as [[UInt8]])
    func cut(record: [UInt8]) { #expect(WorkerCommand(record: record) == nil) }

    @Test("an unknown record is rejected", arguments: [[], [0], [0x52, 0x52], [0x58]] as [[UInt8]])
    func unknown(record: [UInt8]) { #expect(WorkerReport(record: record) == nil) }

    @Test("what was sent before the other end closed is read first; sending to it fails without a signal")
    func closed() throws {
        let pair = try Socket.packetPair().release()
        let master = ControlChannel(OwnedDescriptor(rawValue: pair.second))
        do {
            let worker = ControlChannel(OwnedDescriptor(rawValue: pair.first))
            worker.send(WorkerReport.ready.record)
        }
        #expect(master.receive() == .record(WorkerReport.ready.record))
        #expect(master.receive() == .closed)
        let isSent = master.send([WorkerCommand.stop.record[0]])
        #expect(!isSent)
    }

    @Test("records of the application may be large", arguments: [0, 1000, 100_000, 400_000])
    func large(count: Int) throws {
        let pair = try Socket.packetPair().release()
        let worker = ControlChannel(OwnedDescriptor(rawValue: pair.first), maxRecordBytes: WorkerCommand.maxRecordBytes)
        let master = ControlChannel(OwnedDescriptor(rawValue: pair.second))
        let command = WorkerCommand.application((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        // Without the right to it, a socket's buffer has some 200 KB.
        let isSent = master.send(command.record)
        #expect(isSent || count > 100_000)
        guard isSent, case .record(let record) = worker.receive() else { return #expect(!isSent) }
        #expect(WorkerCommand(record: record) == command)
    }

    @Test("a worker that never reads cannot block the master")
    func full() throws {
        let pair = try Socket.packetPair().release()
        let worker = ControlChannel(OwnedDescriptor(rawValue: pair.first))
        let master = ControlChannel(OwnedDescriptor(rawValue: pair.second))
        var sent = 0
        while sent < 100_000, master.send([WorkerCommand.drain.record[0]]) { sent += 1 }
        #expect(sent < 100_000)
        #expect(worker.receive() == .record([WorkerCommand.drain.record[0]]))
    }
}
