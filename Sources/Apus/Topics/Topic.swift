import ApusBus
import ApusCodec

/// One topic's, or one pattern's, subscribers in this worker.
final class Topic {
    /// What the bus can carry: topics may come from clients.
    static let maxNameBytes = Int(UInt16.max)

    /// In UTF-8: names that only look alike are different topics. Of a pattern, what stands before `/#`.
    let name: [UInt8]
    let hash: UInt32
    let kind: Kind
    /// Another topic of the same hash.
    fileprivate var next: Topic?
    /// No order is promised: who leaves is replaced by the last.
    fileprivate(set) var subscribers: [WebSocket] = []
    /// The last run of publications that it is among the receivers of, see `Publications`.
    var lastRun = 0

    enum Kind { case exact, pattern, everything }

    fileprivate init(name: [UInt8], hash: UInt32, kind: Kind) {
        self.name = name
        self.hash = hash
        self.kind = kind
    }
}

/// A WebSocket's place among a topic's subscribers.
struct Subscription {
    let topic: Topic
    fileprivate(set) var index: Int
}

/// The topics that one publication reaches.
struct MatchingTopics {
    private(set) var first: Topic?
    private(set) var others: [Topic] = []

    fileprivate mutating func add(_ topic: Topic) { if first == nil { first = topic } else { others.append(topic) } }

    func isSame(as other: MatchingTopics) -> Bool {
        first === other.first && others.count == other.others.count && zip(others, other.others).allSatisfy { $0 === $1 }
    }
}

/// The topics of one worker. Names are compared as bytes, and found by a hash that is computed once.
struct TopicTable {
    private var exact: [UInt32: Topic] = [:]
    private var patterns: [UInt32: Topic] = [:]
    /// `#`.
    private var everything: Topic?

    private static let slash = UInt8(ascii: "/")
    private static let hash = UInt8(ascii: "#")

    /// A topic's name as it is subscribed to: `a/b`, or the pattern `a/#`, which matches `a` and everything beneath it; `#` matches all.
    private static func parse(_ text: String) -> (name: [UInt8], kind: Topic.Kind) {
        let bytes = Array(text.utf8)
        if bytes == [hash] { return ([], .everything) }
        return bytes.suffix(2) == [slash, hash] ? (Array(bytes.dropLast(2)), .pattern) : (bytes, .exact)
    }

    /// Adds a subscriber. Gives the topic, or nil if it has subscribed already.
    mutating func add(_ socket: WebSocket, to text: String) -> Topic? {
        let (name, kind) = Self.parse(text)
        if socket.subscriptions.contains(where: { $0.topic.kind == kind && $0.topic.name == name }) { return nil }
        let topic = topic(name, kind)
        socket.subscriptions.append(Subscription(topic: topic, index: topic.subscribers.count))
        topic.subscribers.append(socket)
        return topic
    }

    /// The topic of a name; made if nobody has subscribed to it.
    private mutating func topic(_ name: [UInt8], _ kind: Topic.Kind) -> Topic {
        let hash = TopicHash.of(name.rawSpan)
        if let known = find(name.rawSpan, hash, kind) { return known }
        let topic = Topic(name: name, hash: hash, kind: kind)
        switch kind {
        case .exact:
            topic.next = exact[hash]
            exact[hash] = topic
        case .pattern:
            topic.next = patterns[hash]
            patterns[hash] = topic
        case .everything: everything = topic
        }
        return topic
    }

    private func find(_ name: borrowing RawSpan, _ hash: UInt32, _ kind: Topic.Kind) -> Topic? {
        var candidate: Topic? =
            switch kind {
            case .exact: exact[hash]
            case .pattern: patterns[hash]
            case .everything: everything
            }
        while let topic = candidate {
            let known = topic.name
            if known.rawSpan.isSame(as: name) { return topic }
            candidate = topic.next
        }
        return nil
    }

    private mutating func forget(_ topic: Topic) {
        func without(_ first: Topic?) -> Topic? {
            guard let first, first !== topic else { return topic.next }
            var before = first
            while let next = before.next, next !== topic { before = next }
            before.next = topic.next
            return first
        }
        switch topic.kind {
        case .exact: exact[topic.hash] = without(exact[topic.hash])
        case .pattern: patterns[topic.hash] = without(patterns[topic.hash])
        case .everything: everything = nil
        }
    }

    /// Removes a subscriber. Gives the topic, or nil if it had not subscribed.
    mutating func remove(_ socket: WebSocket, from text: String) -> Topic? {
        let (name, kind) = Self.parse(text)
        guard let place = socket.subscriptions.firstIndex(where: { $0.topic.kind == kind && $0.topic.name == name }) else { return nil }
        return remove(socket, at: place)
    }

    /// Removes a subscriber from everything, and gives the topics.
    mutating func removeAll(of socket: WebSocket) -> [Topic] {
        var topics: [Topic] = []
        while !socket.subscriptions.isEmpty { topics.append(remove(socket, at: socket.subscriptions.count - 1)) }
        return topics
    }

    private mutating func remove(_ socket: WebSocket, at place: Int) -> Topic {
        let (topic, index) = (socket.subscriptions[place].topic, socket.subscriptions[place].index)
        socket.subscriptions.remove(at: place)
        let last = topic.subscribers.removeLast()
        if last !== socket {
            topic.subscribers[index] = last
            if let moved = last.subscriptions.firstIndex(where: { $0.topic === topic }) { last.subscriptions[moved].index = index }
        }
        if topic.subscribers.isEmpty { forget(topic) }
        return topic
    }

    /// The topics that a publication to `name` reaches: the exact one, `#`, and the patterns from the shortest on.
    func matching(_ name: borrowing RawSpan, _ hash: UInt32) -> MatchingTopics {
        var matching = MatchingTopics()
        if let topic = find(name, hash, .exact) { matching.add(topic) }
        if let everything { matching.add(everything) }
        guard !patterns.isEmpty else { return matching }
        // The hash grows from slash to slash, so that a name costs its length, however many slashes it has.
        var prefixHash = TopicHash()
        var start = 0
        for index in 0..<name.byteCount where name.octets[index] == Self.slash {
            prefixHash.add(name.extracting(start..<index))
            start = index
            if let topic = find(name.extracting(0..<index), prefixHash.value, .pattern) { matching.add(topic) }
        }
        if let topic = find(name, hash, .pattern) { matching.add(topic) }
        return matching
    }
}
