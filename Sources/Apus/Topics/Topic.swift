import ApusCodec

/// One topic's, or one pattern's, subscribers in this worker.
final class Topic {
    /// What the bus can carry: topics may come from clients.
    static let maxNameBytes = Int(UInt16.max)

    let name: String
    /// Whether it is a pattern, `…/#`: then `name` is what stands before it.
    let isPattern: Bool
    /// No order is promised: who leaves is replaced by the last.
    fileprivate(set) var subscribers: [WebSocket] = []

    init(name: String, isPattern: Bool) {
        self.name = name
        self.isPattern = isPattern
    }
}

/// A WebSocket's place among a topic's subscribers.
struct Subscription {
    let topic: Topic
    fileprivate(set) var index: Int
}

/// The topics of one worker.
struct TopicTable {
    private var exact: [String: Topic] = [:]
    private var patterns: [String: Topic] = [:]

    /// A topic's name as it is subscribed to: `a/b`, or the pattern `a/#`, which matches `a` and everything beneath it; `#` matches all.
    private static func parse(_ text: String) -> (name: String, isPattern: Bool) {
        if text == "#" { return ("", true) }
        return text.hasSuffix("/#") ? (String(text.dropLast(2)), true) : (text, false)
    }

    /// Adds a subscriber. Gives the topic, or nil if it has subscribed already.
    mutating func add(_ socket: WebSocket, to text: String) -> Topic? {
        let (name, isPattern) = Self.parse(text)
        if socket.subscriptions.contains(where: { $0.topic.name == name && $0.topic.isPattern == isPattern }) { return nil }
        let topic = (isPattern ? patterns[name] : exact[name]) ?? Topic(name: name, isPattern: isPattern)
        if topic.subscribers.isEmpty { if isPattern { patterns[name] = topic } else { exact[name] = topic } }
        socket.subscriptions.append(Subscription(topic: topic, index: topic.subscribers.count))
        topic.subscribers.append(socket)
        return topic
    }

    /// Removes a subscriber. Gives the topic, or nil if it had not subscribed.
    mutating func remove(_ socket: WebSocket, from text: String) -> Topic? {
        let (name, isPattern) = Self.parse(text)
        guard let place = socket.subscriptions.firstIndex(where: { $0.topic.name == name && $0.topic.isPattern == isPattern }) else {
            return nil
        }
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
        if topic.subscribers.isEmpty { if topic.isPattern { patterns[topic.name] = nil } else { exact[topic.name] = nil } }
        return topic
    }

    /// The topics that a publication to `name` reaches: the exact one, then the patterns from the longest on.
    func matching(_ name: String) -> [Topic] {
        var topics: [Topic] = []
        if let topic = exact[name] { topics.append(topic) }
        guard !patterns.isEmpty else { return topics }
        var prefix = Substring(name)
        while true {
            if let topic = patterns[String(prefix)] { topics.append(topic) }
            guard let slash = prefix.lastIndex(of: "/") else { break }
            prefix = prefix[..<slash]
        }
        if !name.isEmpty, let all = patterns[""], !topics.contains(where: { $0 === all }) { topics.append(all) }
        return topics
    }
}
