import ApusBus
import ApusCodec

/// This worker's subscribers of one topic or pattern.
final class Topic {
    /// The bus's limit, in bytes; topics may come from clients.
    static let maxNameBytes = Int(UInt16.max)

    /// UTF-8, compared byte by byte. For a pattern, the part before `/#`.
    let name: [UInt8]
    let hash: UInt32
    let kind: Kind
    /// The next topic with the same hash.
    fileprivate var next: Topic?
    /// Unordered: a removed subscriber is replaced by the last.
    fileprivate(set) var subscribers: [WebSocket] = []
    /// The same for exchanges whose responses are streams.
    fileprivate(set) var exchanges: [HTTPExchange] = []
    /// The last run of publications that matched this topic; see `Publications`.
    var lastRun = 0

    enum Kind { case exact, pattern, everything }

    fileprivate init(name: [UInt8], hash: UInt32, kind: Kind) {
        self.name = name
        self.hash = hash
        self.kind = kind
    }
}

/// A WebSocket, or an exchange whose response is a stream.
protocol TopicSubscriber: AnyObject {
    /// Nil before it has subscribed.
    var membership: TopicMembership? { get set }
    /// Changes the topic's subscribers of this kind.
    static func change<Result>(in topic: Topic, _ body: (inout [Self]) -> Result) -> Result
}

extension WebSocket: TopicSubscriber {
    static func change<Result>(in topic: Topic, _ body: (inout [WebSocket]) -> Result) -> Result { body(&topic.subscribers) }
}

extension HTTPExchange: TopicSubscriber {
    static func change<Result>(in topic: Topic, _ body: (inout [HTTPExchange]) -> Result) -> Result { body(&topic.exchanges) }
}

/// A subscriber's index among those of its kind in a topic.
struct Subscription {
    let topic: Topic
    var index: Int
}

/// The topics that match one publication.
struct MatchingTopics {
    private(set) var first: Topic?
    private(set) var others: [Topic] = []

    fileprivate mutating func add(_ topic: Topic) { if first == nil { first = topic } else { others.append(topic) } }

    func isSame(as other: MatchingTopics) -> Bool {
        first === other.first && others.count == other.others.count && zip(others, other.others).allSatisfy { $0 === $1 }
    }
}

/// The topics of one worker. Names are compared as bytes and found by a hash that is computed once.
struct TopicTable {
    private var exact: [UInt32: Topic] = [:]
    private var patterns: [UInt32: Topic] = [:]
    /// The topic `#`.
    private var everything: Topic?

    private static let slash = UInt8(ascii: "/")
    private static let hash = UInt8(ascii: "#")

    /// Parses a subscription: the exact name `a/b`, or the pattern `a/#`, which matches `a` and
    /// everything below; `#` matches all.
    private static func parse(_ text: String) -> (name: [UInt8], kind: Topic.Kind) {
        let bytes = Array(text.utf8)
        if bytes == [hash] { return ([], .everything) }
        return bytes.suffix(2) == [slash, hash] ? (Array(bytes.dropLast(2)), .pattern) : (bytes, .exact)
    }

    /// Adds a subscriber.
    ///
    /// - Returns: the topic; nil if it has subscribed to it already.
    mutating func add<Subscriber: TopicSubscriber>(_ subscriber: Subscriber, to text: String) -> Topic? {
        let (name, kind) = Self.parse(text)
        let membership = subscriber.membership ?? TopicMembership()
        if membership.place(name, kind) != nil { return nil }
        subscriber.membership = membership
        let topic = topic(name, kind)
        Subscriber.change(in: topic) { subscribers in
            membership.add(topic, at: subscribers.count)
            subscribers.append(subscriber)
        }
        return topic
    }

    /// The topic with this name, created if it does not exist.
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

    /// Removes a subscriber.
    ///
    /// - Returns: the topic; nil if it had not subscribed to it.
    mutating func remove(_ subscriber: some TopicSubscriber, from text: String) -> Topic? {
        let (name, kind) = Self.parse(text)
        guard let membership = subscriber.membership, let place = membership.place(name, kind) else { return nil }
        return remove(subscriber, membership.remove(at: place))
    }

    /// Removes a subscriber from all its topics, and returns these.
    mutating func removeAll(of subscriber: some TopicSubscriber) -> [Topic] {
        guard let membership = subscriber.membership else { return [] }
        var topics: [Topic] = []
        while !membership.subscriptions.isEmpty {
            topics.append(remove(subscriber, membership.remove(at: membership.subscriptions.count - 1)))
        }
        return topics
    }

    private mutating func remove<Subscriber: TopicSubscriber>(_ subscriber: Subscriber, _ subscription: Subscription) -> Topic {
        let topic = subscription.topic
        Subscriber.change(in: topic) { subscribers in
            let last = subscribers.removeLast()
            guard last !== subscriber else { return }
            subscribers[subscription.index] = last
            last.membership?.moved(in: topic, to: subscription.index)
        }
        if topic.subscribers.isEmpty, topic.exchanges.isEmpty { forget(topic) }
        return topic
    }

    /// The topics that match a publication to `name`: the exact one, `#`, and the patterns,
    /// shortest first.
    func matching(_ name: borrowing RawSpan, _ hash: UInt32) -> MatchingTopics {
        var matching = MatchingTopics()
        if let topic = find(name, hash, .exact) { matching.add(topic) }
        if let everything { matching.add(everything) }
        guard !patterns.isEmpty else { return matching }
        // The hash is extended from slash to slash, so the cost is linear in the name's length,
        // whatever the number of slashes.
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
