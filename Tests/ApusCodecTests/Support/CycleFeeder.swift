import ApusCodec
import Testing

extension TimePoint {
    /// So many seconds after the beginning of a test.
    static func at(_ seconds: Double) -> TimePoint { TimePoint(milliseconds: UInt64(seconds * 1000)) }
}

extension OutputState {
    /// Nothing waits.
    static let drained = OutputState(waitingBytes: 0, takenBytes: 0)
    /// Output waits, of which the peer has taken so many bytes in all.
    static func waiting(taken: Int) -> OutputState { OutputState(waitingBytes: 100, takenBytes: taken) }
}

/// What the owner of a cycle does about an event.
enum Reaction: Sendable {
    case none
    /// A server answers 200 when a request is complete.
    case answer
    /// A server answers 200 as soon as a request's head is there.
    case answerEarly
    /// A server answers 200 as soon as a request's head is there, and closes.
    case refuseEarly
    /// A server agrees to what a complete request proposes.
    case acceptSwitch
    /// A server agrees to a body that is announced.
    case agree
}

/// Drives a cycle and writes down what comes of it, with the pieces of each body joined, so that it
/// must not depend on how the input was cut.
struct CycleFeeder {
    var cycle: HTTP1Cycle
    var limits = HTTP1Limits()
    var reaction = Reaction.none
    private(set) var items: [String] = []
    /// Bytes that have not been used.
    private(set) var left: [UInt8] = []

    init(_ cycle: HTTP1Cycle, _ reaction: Reaction = .none) {
        self.cycle = cycle
        self.reaction = reaction
    }

    /// Feeds all of `text`, then trailing bytes if the feed has them.
    mutating func feed(_ text: String, _ feed: Feed, trailing: String = "") {
        switch feed {
        case .whole: take(Array(text.utf8))
        case .byteByByte: for byte in text.utf8 { take([byte]) }
        case .withTrailingBytes: take(Array((text + trailing).utf8))
        }
    }

    /// Feeds bytes behind those that were left.
    mutating func take(_ bytes: [UInt8]) {
        left += bytes
        let input = left
        var position = 0
        do throws(HTTPViolation) {
            while let event = try cycle.event(input.span, from: &position, now: .at(0), limits: limits) {
                guard note(event) else { break }
                react(to: event)
            }
        } catch {
            items.append("violation \(error.status.code)")
            #expect(position == input.count)
        }
        left.removeFirst(position)
    }

    /// False when nothing more is to be asked for.
    private mutating func note(_ event: HTTP1Event) -> Bool {
        switch event {
        case .request(let head): items.append("request \(head.method) \(head.target)")
        case .informational(let head): items.append("informational \(head.status.code)")
        case .response(let head): items.append("response \(head.status.code)")
        case .data(let range):
            #expect(!range.isEmpty)
            let content = String(decoding: left[range], as: UTF8.self)
            if let last = items.last, last.hasPrefix("body ") {
                items[items.count - 1] = last + content
            } else {
                items.append("body " + content)
            }
        case .end: items.append("end")
        case .paused:
            if items.last != "paused" { items.append("paused") }
            return false
        case .over:
            if items.last != "over" { items.append("over") }
            return false
        }
        return true
    }

    private mutating func react(to event: HTTP1Event) {
        switch (reaction, event) {
        case (.answer, .end): answer(keepsAlive: true)
        case (.answerEarly, .request): answer(keepsAlive: true)
        case (.refuseEarly, .request): answer(keepsAlive: false)
        case (.acceptSwitch, .end): #expect(cycle.acceptSwitch() == .switchProtocol)
        case (.agree, .request): if cycle.awaitsContinue { cycle.sendInformational(.continue, now: .at(0)) }
        case (_, _): break
        }
    }

    private mutating func answer(keepsAlive: Bool) {
        _ = cycle.startResponse(.ok, framing: .counted(0), keepsAlive: keepsAlive)
        _ = cycle.endResponse(.drained, now: .at(0))
    }
}

extension HTTP1Cycle {
    /// The two states without their payloads, such as `receivingBody × awaited`.
    var names: String { "\(Self.name(request)) × \(Self.name(response))" }

    private static func name(_ state: Any) -> String {
        let text = "\(state)"
        return String(text.prefix { $0 != "(" })
    }
}
