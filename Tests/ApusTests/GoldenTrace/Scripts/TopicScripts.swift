import Apus
import ApusCodec

extension GoldenScripts {
    /// WebSockets of one server, each with its peer, labelled `a`, `b` and so on.
    private final class Room {
        let server: TracedServer
        private(set) var peers: [TracedPeer] = []
        private(set) var handlers: [TracedHandler] = []
        let spoken: WebSocketProtocol

        /// - Parameter offers: what each peer offers as extensions, empty for nothing.
        init(_ trace: Trace, offers: [String], limits: (inout Limits) -> Void = { _ in }) throws {
            final class Opened {
                var handlers: [TracedHandler] = []
                var spoken: WebSocketProtocol?
            }
            let opened = Opened()
            server = try TracedServer(trace, limits: limits) { server in
                server.extensions = [PerMessageDeflate.always()]
                opened.spoken = server.webSocket("chat", at: "/") { request in
                    opened.handlers.append(TracedHandler(trace, label: request.head.queryString ?? ""))
                    return opened.handlers[opened.handlers.count - 1]
                }
            }
            guard let spoken = opened.spoken else { preconditionFailure("the server was configured") }
            self.spoken = spoken
            for (label, offer) in zip(["a", "b", "c", "d"], offers) {
                peers.append(try server.webSocket(label, fields: offer.isEmpty ? "" : "Sec-WebSocket-Extensions: \(offer)\r\n"))
            }
            handlers = opened.handlers
        }

        convenience init(_ trace: Trace, _ count: Int, limits: (inout Limits) -> Void = { _ in }) throws {
            try self.init(trace, offers: Array(repeating: "", count: count), limits: limits)
        }

        var worker: Worker { server.worker }

        func socket(_ index: Int) throws -> WebSocket {
            guard let socket = handlers[index].socket else { throw TimedOut(description: "WebSocket \(index) is not open") }
            return socket
        }

        func subscribe(_ index: Int, to topic: String) throws {
            let socket = try socket(index)
            server.call("subscribe to \(topic): \(socket.subscribe(to: topic))", handlers[index].label) {}
        }

        func unsubscribe(_ index: Int, from topic: String) throws {
            let socket = try socket(index)
            server.call("unsubscribe from \(topic)", handlers[index].label) { socket.unsubscribe(from: topic) }
        }

        func publish(_ text: String, to topic: String, excluding: WebSocket? = nil) {
            server.call("publish \"\(text)\" to \(topic)\(excluding == nil ? "" : ", excluding one")") {
                worker.publish(Array(text.utf8), as: .text, to: topic, excluding: excluding)
            }
        }
    }

    /// Publications, signals, requests to all, and messages that are encoded once.
    static let topics: [GoldenScript] = [
        GoldenScript("publish, subscribe and unsubscribe") { trace in
            let room = try Room(trace, 3)
            try room.subscribe(0, to: "news")
            try room.subscribe(1, to: "news")
            room.publish("one", to: "news")
            try room.server.settle()
            try room.unsubscribe(0, from: "news")
            room.publish("two", to: "news")
            room.publish("nobody", to: "other")
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("patterns: each publication once, whatever matches") { trace in
            let room = try Room(trace, 3)
            for topic in ["a/b", "a/#", "#"] { try room.subscribe(0, to: topic) }
            try room.subscribe(1, to: "a/#")
            try room.subscribe(2, to: "#")
            for topic in ["a/b", "a", "c"] {
                room.publish("to \(topic)", to: topic)
                try room.server.settle()
            }
            try room.server.finish()
        },
        GoldenScript("the sender's own publication is not for it, and an excluded one gets nothing") { trace in
            let room = try Room(trace, 3)
            for index in 0..<3 { try room.subscribe(index, to: "t") }
            try room.server.call("publish \"mine\" to t", "a") { try room.socket(0).publish(Array("mine".utf8), as: .text, to: "t") }
            room.publish("all but b", to: "t", excluding: try room.socket(1))
            room.publish("all", to: "t")
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("what is sent in the turn of a publication follows it") { trace in
            let room = try Room(trace, 2)
            try room.subscribe(0, to: "t")
            let socket = try room.socket(0)
            room.publish("published first", to: "t")
            room.server.send("send", "a") { socket.send(text: "sent second") }
            room.publish("published third", to: "t")
            room.server.send("ping", "a") { socket.ping() }
            try room.server.settle()
            room.publish("published last", to: "t")
            room.server.call("close", "a") { socket.close() }
            room.publish("too late", to: "t")
            try room.server.settle()
            room.peers[0].send(RawFrame.close(1000))
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("published from a callback, echoed to all") { trace in
            let room = try Room(trace, 3)
            for index in 0..<3 { try room.subscribe(index, to: "t") }
            room.handlers[0].whenReceived = { socket, message in
                guard case .text(let text) = message else { return }
                socket.send(text: "before \(text)")
                socket.worker.publish(Array("\(text) published".utf8), as: .text, to: "t")
                socket.send(text: "behind \(text)")
            }
            room.peers[0].send(RawFrame.client(1, "one") + RawFrame.client(1, "two"))
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("publications during a message in fragments wait for its end") { trace in
            let room = try Room(trace, 2)
            for index in 0..<2 { try room.subscribe(index, to: "t") }
            let socket = try room.socket(0)
            room.server.send("first fragment", "a") { socket.sendFragment(Array("Hel".utf8).span.bytes, as: .text, isLast: false) }
            room.publish("one", to: "t")
            try room.server.settle()
            room.publish("two", to: "t")
            try room.server.settle()
            room.server.send("last fragment", "a") { socket.sendFragment(Array("lo".utf8).span.bytes, as: .text, isLast: true) }
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("a subscriber that leaves, and one that joins, between publications of one turn") { trace in
            let room = try Room(trace, 3)
            for index in 0..<2 { try room.subscribe(index, to: "t") }
            room.publish("one", to: "t")
            try room.unsubscribe(0, from: "t")
            try room.subscribe(2, to: "t")
            room.publish("two", to: "t")
            room.server.call("terminate", "b") { try? room.socket(1).terminate() }
            room.publish("three", to: "t")
            try room.server.settle()
            room.publish("four", to: "t")
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("a slow subscriber misses publications") { trace in
            let room = try Room(trace, 2) {
                $0.maxBufferedBytes = 100_000
                $0.slowSubscribers = .skip
            }
            for index in 0..<2 { try room.subscribe(index, to: "t") }
            try fill(room)
            room.publish("one", to: "t")
            room.publish("two", to: "t")
            try room.server.settle()
            room.server.call("the peer reads", "a") { room.peers[0].isReadingPaused = false }
            try room.server.settle()
            room.publish("three", to: "t")
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("a slow subscriber is closed") { trace in
            let room = try Room(trace, 2) { $0.maxBufferedBytes = 100_000 }
            for index in 0..<2 { try room.subscribe(index, to: "t") }
            try fill(room)
            room.publish("one", to: "t")
            try room.server.settle()
            room.server.call("the peer reads", "a") { room.peers[0].isReadingPaused = false }
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("subscriptions: the limit, twice, and after the end") { trace in
            let room = try Room(trace, 1) { $0.maxSubscriptions = 2 }
            for topic in ["x", "x", "y", "z"] { try room.subscribe(0, to: topic) }
            room.publish("once", to: "x")
            try room.server.settle()
            room.peers[0].send(RawFrame.close(1000))
            try room.server.settle()
            try room.subscribe(0, to: "x")
            room.publish("nobody", to: "x")
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("compressed and plain subscribers") { trace in
            let room = try Room(trace, offers: ["", "permessage-deflate", "permessage-deflate; server_no_context_takeover"])
            for index in 0..<3 { try room.subscribe(index, to: "t") }
            for _ in 0..<2 { room.publish("Hello", to: "t") }
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("an EncodedMessage for plain and compressed connections, in and outside of a callback") { trace in
            let room = try Room(trace, offers: ["", "permessage-deflate", ""])
            let message = EncodedMessage(Array("Hello".utf8), as: .text)
            for (index, handler) in room.handlers.enumerated() {
                room.server.send("send the EncodedMessage", handler.label) { handlerSend(room, index, message) }
            }
            try room.server.settle()
            room.handlers[0].whenReceived = { socket, _ in
                socket.send(text: "before")
                for handler in room.handlers { handler.socket?.send(message) }
                socket.send(text: "behind")
            }
            room.peers[0].send(RawFrame.client(1, "go"))
            try room.server.settle()
            // The handlers refer to the room.
            room.handlers[0].whenReceived = { _, _ in }
            try room.server.finish()
        },
        GoldenScript("a large EncodedMessage, shared by the queues") { trace in
            let room = try Room(trace, 2)
            let message = EncodedMessage([UInt8](repeating: 0x65, count: 200_000), as: .binary)
            for (index, handler) in room.handlers.enumerated() {
                room.server.send("send the EncodedMessage", handler.label) { handlerSend(room, index, message) }
            }
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("signal(all:), requestWritable(all:) and resumeReceiving(all:)") { trace in
            let room = try Room(trace, 2)
            room.server.call("signal 7") { room.worker.signal(all: room.spoken, 7, payload: Array("payload".utf8)) }
            try room.server.settle()
            room.server.call("requestWritable, twice") {
                room.worker.requestWritable(all: room.spoken)
                room.worker.requestWritable(all: room.spoken)
            }
            try room.server.settle()
            for index in 0..<2 { try room.socket(index).pauseReceiving() }
            for peer in room.peers { peer.send(RawFrame.client(1, "waits")) }
            try room.server.settle()
            room.server.call("resumeReceiving") { room.worker.resumeReceiving(all: room.spoken) }
            try room.server.settle()
            room.server.call("the same from another thread's handle") {
                let remote = room.worker.remote
                remote.publish(Array("remote".utf8), as: .text, to: "t")
                remote.signal(all: room.spoken.id, 8)
                remote.requestWritable(all: room.spoken.id)
            }
            try room.server.settle()
            try room.server.finish()
        },
        GoldenScript("a handler closes, terminates and sends to the others") { trace in
            let room = try Room(trace, 4)
            room.handlers[0].whenReceived = { [unowned room] _, _ in
                let sockets = room.handlers.compactMap(\.socket)
                sockets[1].send(text: "good bye")
                sockets[1].close(code: .goingAway)
                sockets[2].send(text: "dropped")
                sockets[2].terminate()
                sockets[3].send(text: "stay")
            }
            // All have input in the same turn.
            for index in [1, 2, 3, 0] { room.peers[index].send(RawFrame.client(1, "to \(index)")) }
            try room.server.settle()
            room.peers[1].send(RawFrame.close(1001))
            try room.server.settle()
            try room.server.finish()
        },
    ]

    private static func handlerSend(_ room: Room, _ index: Int, _ message: EncodedMessage) -> WebSocket.SendOutcome {
        room.handlers[index].socket?.send(message) ?? .closed
    }

    /// Has the first socket's output wait for its peer.
    private static func fill(_ room: Room) throws {
        let socket = try room.socket(0)
        room.peers[0].isReadingPaused = true
        room.server.send("4000000 bytes", "a") { socket.send(binary: [UInt8](repeating: 0x61, count: 4_000_000)) }
        try room.server.settle()
    }
}
