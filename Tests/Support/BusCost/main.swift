// What the bus costs: `main SECONDS PER_MILLISECOND together|apart` publishes so many records of 100 bytes each millisecond, in one turn of the loop or
// each in a turn of its own, from one process to another, and prints the CPU time of both for a publication, less what the same turns cost
// without, as a share of what the kernel takes to pass a packet with one of them on; and how many packets they went in.
import ApusBus
import ApusCodec
import ApusPlatform
import Glibc
import Synchronization

guard CommandLine.arguments.count == 4, let seconds = Double(CommandLine.arguments[1]), let each = Int(CommandLine.arguments[2]),
    ["together", "apart"].contains(CommandLine.arguments[3])
else {
    print("usage: BusCost SECONDS PER_MILLISECOND together|apart")
    exit(64)
}
let isApart = CommandLine.arguments[3] == "apart"
guard let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), memory != MAP_FAILED else { exit(1) }
/// Bytes of payload that have come.
let arrived = memory.bindMemory(to: Atomic<Int>.self, capacity: 1)
let mailboxes = try Mailboxes(slots: 2)
let interest = try InterestTable(slots: 2)
let topic = Array("prices/eur".utf8)
let payload = [UInt8](repeating: 0x61, count: 100)

/// Calls something each millisecond.
final class Metronome: TimerNode {
    private let loop: EventLoop
    private let beat: () -> Void

    init(_ loop: EventLoop, _ beat: @escaping () -> Void) {
        self.loop = loop
        self.beat = beat
        super.init()
        loop.schedule(self, at: loop.now + .milliseconds(1))
    }

    override func timerFired(at now: MonotonicTime) {
        loop.schedule(self, at: now + .milliseconds(1))
        beat()
    }
}

@MainActor func station(slot: Int, _ loop: EventLoop, received: @escaping (Record) -> Void) throws -> BroadcastBus {
    try BroadcastBus(
        place: Mailboxes.place(slot: slot, side: 0), generation: 0, mailboxes: mailboxes, interest: interest, loop: loop,
        handlers: .init(received: received, gap: { _, lost in exit(Int32(lost)) }, requested: { _, _ in }))
}

let master = Process.id
let receiver = try Process.fork {
    // The parent kills it when it is done; this ends it if the parent dies first.
    guard (try? Process.guardOrphan(of: master, listeners: [], seconds: 1)) != nil, let loop = try? EventLoop(),
        let bus = try? station(
            slot: 1, loop,
            received: {
                guard case .publication(let topic, _, _, let payload) = $0, topic.byteCount == 10 else { exit(2) }
                arrived.pointee.add(payload.byteCount, ordering: .relaxed)
            })
    else { return 1 }
    bus.interest.count(1, topicHash: TopicHash.of(topic.rawSpan), in: bus.place)
    while (try? loop.turn()) != nil { bus.flush() }
    return 1
}

func cpuSeconds(of clock: clockid_t) -> Double {
    var time = timespec()
    clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
var receiverClock = clockid_t()
clock_getcpuclockid(receiver.pid, &receiverClock)
@MainActor func cpuSeconds() -> Double { cpuSeconds(of: CLOCK_PROCESS_CPUTIME_ID) + cpuSeconds(of: receiverClock) }

let loop = try EventLoop()
let bus = try station(slot: 0, loop, received: { _ in })
let hash = TopicHash.of(topic.rawSpan)
while !interest.isInterested(Mailboxes.place(slot: 1, side: 0), topicHash: hash) { try loop.turn(timeout: .milliseconds(1)) }

var isPublishing = false
var published = 0
var pending = 0
let metronome = Metronome(loop) { pending = each }

/// Serves for a while; gives the CPU time of both processes.
@MainActor func serve() throws -> Double {
    let end = MonotonicTime.now() + .seconds(seconds)
    let before = cpuSeconds()
    while MonotonicTime.now() < end {
        if pending > 0 {
            let count = isApart ? 1 : pending
            pending -= count
            if isPublishing {
                for _ in 0..<count {
                    bus.publish(topic: topic.rawSpan, hash: TopicHash.of(topic.rawSpan), isText: true, payload: payload.rawSpan)
                }
                published += count
            }
        }
        bus.flush()
        try loop.turn(timeout: pending > 0 ? .zero : nil)
    }
    return cpuSeconds() - before
}

let idle = try serve()
isPublishing = true
let busy = try serve()
bus.flush()
let deadline = MonotonicTime.now() + .seconds(10)
while arrived.pointee.load(ordering: .relaxed) < published * payload.count, MonotonicTime.now() < deadline {
    bus.flush()
    try loop.turn(timeout: .milliseconds(1))
}
_ = Process.killAndReap(receiver.pid)
guard arrived.pointee.load(ordering: .relaxed) == published * payload.count, published > 0 else {
    print("\(arrived.pointee.load(ordering: .relaxed)) bytes of \(published * payload.count) arrived")
    exit(1)
}

/// What the kernel takes to pass one record on by itself, one packet each: the machine's measure.
@MainActor func packetSeconds(count: Int) throws -> Double {
    let ends = try Socket.packetPair().release()
    let before = cpuSeconds(of: CLOCK_PROCESS_CPUTIME_ID)
    for _ in 0..<count {
        _ = try Socket.send(ends.first, payload)
        guard case .done(let packet) = try Socket.receivePacket(ends.second, maxBytes: 256), packet.count == payload.count else { exit(3) }
    }
    return (cpuSeconds(of: CLOCK_PROCESS_CPUTIME_ID) - before) / Double(count)
}
let packet = try packetSeconds(count: 100_000)
let cost = (busy - idle) / Double(published)
// A share of a packet's cost, publications, packets: these are judged, what follows is for the reader.
print(
    cost / packet, published, bus.counts.packetsSent,
    "(\(Int(cost * 1e9)) ns each, of a packet's \(Int(packet * 1e9)); \(Int(Double(published) / seconds)) in a second)")
