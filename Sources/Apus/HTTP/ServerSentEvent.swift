import ApusCodec

/// A message of an event stream, `text/event-stream` (the HTML standard §9.2).
public struct ServerSentEvent: Sendable, Hashable {
    /// The text; bytes that are not UTF-8 are replaced by U+FFFD.
    public var data: String
    /// The event's type; nil: `message`. Without line ends: what follows one is left out.
    public var event: String?
    /// What a client sends as `Last-Event-ID` when it connects again. Without line ends and NUL.
    public var id: String?

    public init(_ data: String, event: String? = nil, id: String? = nil) {
        self.data = data
        self.event = event
        self.id = id
    }

    init(_ payload: [UInt8]) { self.init(String(decoding: payload, as: UTF8.self)) }

    /// A comment, which keeps a connection in use and makes a client that has gone known.
    static let comment = Array(":\n\n".utf8)

    func append(to output: inout [UInt8]) {
        if let event { Self.append("event: ", Self.firstLine(event), to: &output) }
        if let id { Self.append("id: ", Self.firstLine(id), to: &output) }
        // Each line of the text is a field; CRLF, LF and CR end one.
        for line in data.split(omittingEmptySubsequences: false, whereSeparator: { $0 == "\n" || $0 == "\r\n" || $0 == "\r" }) {
            Self.append("data: ", line, to: &output)
        }
        output.append("\n")
    }

    private static func firstLine(_ text: String) -> Substring { text.prefix { $0 != "\n" && $0 != "\r\n" && $0 != "\r" && $0 != "\0" } }

    private static func append(_ name: StaticString, _ value: Substring, to output: inout [UInt8]) {
        output.append(name)
        output.append(contentsOf: value.utf8)
        output.append("\n")
    }
}
