import ApusCodec
import Testing

/// The three ways to feed a decoder; the result must not depend on them.
enum Feed: CaseIterable {
    case whole
    case byteByByte
    case withTrailingBytes

    /// Bytes of the next message, which must not be consumed.
    static let trailing = Array("\u{1}\u{7F}GET".utf8)
}

/// A head decoder, request or response.
protocol HeadDecoder {
    associatedtype Head
    init(limits: HTTPHeadLimits)
    mutating func decode(_ bytes: Span<UInt8>, consumed: inout Int) throws(HTTPViolation) -> Head?
    var isIdle: Bool { get }
}

extension HTTPRequestDecoder: HeadDecoder {}
extension HTTPResponseDecoder: HeadDecoder {}

extension HeadDecoder {
    /// Decodes one head from `bytes`, and checks that exactly `bytes` are consumed when it is
    /// complete. Nil: more bytes are needed.
    static func feed(_ bytes: [UInt8], _ feed: Feed, limits: HTTPHeadLimits = HTTPHeadLimits()) throws(HTTPViolation) -> Head? {
        var decoder = Self(limits: limits)
        #expect(decoder.isIdle)
        var consumed = 0
        switch feed {
        case .whole:
            let head = try decoder.decode(bytes.span, consumed: &consumed)
            #expect(consumed == bytes.count)
            if head != nil { #expect(decoder.isIdle) }
            return head
        case .byteByByte:
            var head: Head?
            for (index, byte) in bytes.enumerated() {
                head = try decoder.decode([byte].span, consumed: &consumed)
                #expect(consumed == 1)
                if head != nil { #expect(index == bytes.count - 1, "complete before the last byte") }
            }
            return head
        case .withTrailingBytes:
            // Bytes after an incomplete head would become part of it.
            var probe = Self(limits: limits)
            guard try probe.decode(bytes.span, consumed: &consumed) != nil else { return nil }
            let head = try decoder.decode((bytes + Feed.trailing).span, consumed: &consumed)
            #expect(consumed == bytes.count, "trailing bytes were touched")
            return head
        }
    }

    /// The violation in `bytes`, the same in all three ways; nil if there is none.
    static func violation(_ bytes: [UInt8], limits: HTTPHeadLimits = HTTPHeadLimits()) -> HTTPViolation? {
        var found: [HTTPViolation?] = []
        for way in Feed.allCases {
            do {
                _ = try feed(bytes, way, limits: limits)
                found.append(nil)
            } catch {
                found.append(error)
            }
        }
        #expect(Set(found).count == 1, "depends on the feed: \(found)")
        return found[0]
    }

    /// The head in `bytes`.
    static func head(_ text: String, limits: HTTPHeadLimits = HTTPHeadLimits()) throws -> Head {
        try #require(try feed(Array(text.utf8), .whole, limits: limits))
    }
}

/// The result of decoding a body.
struct DecodedBody: Equatable {
    var content: [UInt8] = []
    var isComplete = false
    /// Bytes after the end.
    var left = 0
}

/// Decodes a body. `left` counts the bytes not consumed, without the feeder's own trailing bytes.
func decodeBody(
    _ bytes: [UInt8], _ framing: HTTPBodyFraming, maxBytes: Int = 1 << 20, toleratesPadding: Bool = false, feed: Feed
) throws(HTTPViolation) -> DecodedBody {
    var decoder = HTTPBodyDecoder(framing: framing, maxBytes: maxBytes, toleratesPadding: toleratesPadding)
    var body = DecodedBody()
    let pieces: [[UInt8]] =
        switch feed {
        case .whole: [bytes]
        case .byteByByte: bytes.isEmpty ? [[]] : bytes.map { [$0] }
        case .withTrailingBytes: [bytes + Feed.trailing]
        }
    for piece in pieces {
        var offset = 0
        while let event = try decoder.next(piece.span, from: &offset) {
            switch event {
            case .data(let range):
                #expect(!range.isEmpty)
                body.content += piece[range]
            case .end: body.isComplete = true
            }
        }
        body.left += piece.count - offset
    }
    #expect(decoder.isComplete == body.isComplete)
    if feed == .withTrailingBytes, body.isComplete { body.left -= Feed.trailing.count }
    return body
}
