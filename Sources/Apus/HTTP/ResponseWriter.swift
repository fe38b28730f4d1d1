import ApusCodec

/// Writes the responses of a connection, one after the other: heads, and content in its framing
/// (RFC 9112 §6, §7.1).
struct ResponseWriter {
    private enum Framing {
        /// Content is discarded: a response to HEAD, or a status without content.
        case none
        /// So many bytes of content are still to be written.
        case counted(left: Int)
        case chunked
        case untilClose
    }

    private var framing = Framing.none

    /// Writes an interim response (RFC 9110 §15.2).
    func inform(_ status: HTTPStatus, _ fields: HTTPFields, on stream: ByteStream) {
        var head: [UInt8] = []
        let date: [UInt8] = []
        HTTPEncoder.appendResponseHead(
            status: status, fields: fields, framing: .none, persistence: .implied, date: date.span, to: &head)
        stream.write(head)
    }

    /// Writes the head of a final response.
    ///
    /// - Returns: whether content follows.
    mutating func begin(_ response: Response, _ start: HTTP1ResponseStart, on stream: ByteStream) -> Bool {
        var head: [UInt8] = []
        head.reserveCapacity(256)
        HTTPEncoder.appendResponseHead(
            status: response.status, fields: response.fields, framing: start.framing, persistence: start.persistence,
            date: stream.worker.date.span, to: &head)
        stream.write(head)
        framing =
            switch start.framing {
            case .counted(let count) where start.hasContent: .counted(left: count)
            case .chunked where start.hasContent: .chunked
            case .untilClose where start.hasContent: .untilClose
            case .none, .counted, .chunked, .untilClose: .none
            }
        return start.hasContent
    }

    /// Writes a part of the content, which is not empty.
    ///
    /// - Returns: false if it exceeds what was announced; nothing is written then.
    mutating func append(_ content: borrowing RawSpan, to stream: ByteStream) -> Bool {
        var bytes: [UInt8] = []
        switch framing {
        case .none: return true
        case .counted(let left):
            guard content.byteCount <= left else { return false }
            framing = .counted(left: left - content.byteCount)
            bytes.append(content)
        case .chunked:
            bytes.reserveCapacity(content.byteCount + 12)
            HTTPEncoder.appendChunk(content.octets, to: &bytes)
        case .untilClose: bytes.append(content)
        }
        stream.write(bytes)
        return true
    }

    /// Whether content is sent in chunks.
    var isChunked: Bool { if case .chunked = framing { true } else { false } }

    /// Ends the content. Trailers are sent with chunks only.
    ///
    /// - Returns: false if less was written than announced.
    mutating func end(_ trailers: HTTPFields, on stream: ByteStream) -> Bool {
        switch framing {
        case .counted(let left): return left == 0
        case .chunked:
            var bytes: [UInt8] = []
            HTTPEncoder.appendLastChunk(trailers: trailers, to: &bytes)
            stream.write(bytes)
            return true
        case .none, .untilClose: return true
        }
    }
}
