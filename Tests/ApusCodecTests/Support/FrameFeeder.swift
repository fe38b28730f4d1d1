import ApusCodec
import Testing
import TestSupport

/// An event of a frame decoder, with the pieces of each data frame joined, so that it does not
/// depend on how the input was cut.
enum FrameItem: Equatable {
    case data(MessageKind, reservedBits: UInt8 = 0, starts: Bool = true, isFinal: Bool = true, [UInt8])
    case ping([UInt8])
    case pong([UInt8])
    case close(UInt16?, String)
}

/// The result of decoding a frame stream.
struct FrameOutcome: Equatable {
    var items: [FrameItem] = []
    var violation: FrameViolation?
    /// Bytes at the end that were not consumed.
    var unconsumed = 0
}

/// How a frame stream is cut.
enum FrameCut: Sendable, CustomStringConvertible {
    case whole
    case byteByByte
    /// Followed by the first octet of another frame, which must not be consumed.
    case withTrailingByte
    /// At random places from a seed.
    case random(seed: UInt64)
    /// Whole, with `nextShortMessage` first, as a server does.
    case byFastPath
    /// The same, cut at random.
    case randomByFastPath(seed: UInt64)

    static let all: [FrameCut] = [
        .whole, .byteByByte, .withTrailingByte, .random(seed: 1), .random(seed: 2), .random(seed: 3), .byFastPath,
        .randomByFastPath(seed: 4),
    ]

    var isFastPath: Bool {
        switch self {
        case .byFastPath, .randomByFastPath: true
        case .whole, .byteByByte, .withTrailingByte, .random: false
        }
    }

    var description: String {
        switch self {
        case .whole: "whole"
        case .byteByByte: "byte by byte"
        case .withTrailingByte: "with a trailing byte"
        case .random(let seed): "cut at random, seed \(seed)"
        case .byFastPath: "by the fast path"
        case .randomByFastPath(let seed): "by the fast path, cut at random, seed \(seed)"
        }
    }

    func pieces(of bytes: [UInt8]) -> [[UInt8]] {
        switch self {
        case .whole, .byFastPath: return [bytes]
        case .byteByByte: return bytes.map { [$0] }
        case .withTrailingByte: return [bytes + [0x89]]
        case .random(let seed), .randomByFastPath(let seed):
            var generator = SeededGenerator(seed: seed)
            var pieces: [[UInt8]] = []
            var start = 0
            while start < bytes.count {
                // Small pieces cut headers, large ones hold several frames.
                let most = Bool.random(using: &generator) ? 9 : max(9, bytes.count / 3)
                let end = min(bytes.count, start + Int.random(in: 1...most, using: &generator))
                pieces.append(Array(bytes[start..<end]))
                start = end
            }
            return pieces
        }
    }
}

/// Feeds `bytes` to a decoder according to its contract: bytes that were not consumed are passed
/// again in front of the next ones.
///
/// Also checks that octets that were not consumed are neither changed nor too many, and the
/// properties of the pieces: `startsMessage`, `remainingInFrame`, `isInsideMessage`.
func decodeFrames(
    _ bytes: [UInt8], role: Role, ownedReservedBits: UInt8 = 0, maxMessageBytes: Int = 1 << 20, cut: FrameCut
) -> FrameOutcome {
    var decoder = FrameDecoder(role: role, ownedReservedBits: ownedReservedBits, maxMessageBytes: maxMessageBytes)
    var outcome = FrameOutcome()
    var buffer: [UInt8] = []
    var frame: (first: DataPiece, owed: UInt64, payload: [UInt8])?
    for piece in cut.pieces(of: bytes) {
        buffer += piece
        let untouched = buffer
        var position = 0
        do throws(FrameViolation) {
            while let event = try decodeNext(&decoder, &buffer, &position, byFastPath: cut.isFastPath) {
                switch event {
                case .ping(let range): outcome.items.append(.ping(Array(buffer[range])))
                case .pong(let range): outcome.items.append(.pong(Array(buffer[range])))
                case .close(let code, let reason):
                    outcome.items.append(.close(code?.rawValue, String(decoding: buffer[reason], as: UTF8.self)))
                case .data(let data):
                    if let open = frame {
                        #expect(!data.startsMessage, "a later piece of a frame starts no message")
                        #expect(!data.range.isEmpty, "an empty piece is given only for an empty frame")
                        #expect(data.remainingInFrame == open.owed - UInt64(data.range.count))
                        #expect((data.kind, data.reservedBits) == (open.first.kind, open.first.reservedBits))
                        #expect(data.isFinalFrame == open.first.isFinalFrame)
                        frame = (open.first, data.remainingInFrame, open.payload + buffer[data.range])
                    } else {
                        frame = (data, data.remainingInFrame, Array(buffer[data.range]))
                    }
                    #expect(data.endsMessage == (data.isFinalFrame && data.remainingInFrame == 0))
                    #expect(decoder.remainingInFrame == data.remainingInFrame)
                    #expect(decoder.isInsideMessage == !data.endsMessage)
                    if data.remainingInFrame == 0, let whole = frame {
                        outcome.items.append(
                            .data(
                                data.kind, reservedBits: data.reservedBits, starts: whole.first.startsMessage,
                                isFinal: data.isFinalFrame,
                                whole.payload))
                        frame = nil
                    }
                }
            }
        } catch {
            outcome.violation = error
            return outcome
        }
        #expect(buffer[position...] == untouched[position...], "octets that were not consumed were changed")
        buffer.removeFirst(position)
        #expect(buffer.count <= FrameDecoder.maxUnconsumedBytes)
        #expect(frame == nil || buffer.isEmpty, "payload of data frames is always consumed")
    }
    outcome.unconsumed = buffer.count
    if case .withTrailingByte = cut, outcome.unconsumed > 0 { outcome.unconsumed -= 1 }
    return outcome
}

private func decodeNext(
    _ decoder: inout FrameDecoder, _ buffer: inout [UInt8], _ position: inout Int, byFastPath: Bool
) throws(FrameViolation) -> FrameEvent? {
    let end = buffer.count
    var octets = buffer.mutableSpan
    var bytes = octets.mutableBytes
    if byFastPath, let short = decoder.nextShortMessage(in: &bytes, until: end, from: &position) {
        return .data(
            DataPiece(
                range: short.range, kind: short.kind, reservedBits: 0, startsMessage: true, remainingInFrame: 0,
                isFinalFrame: true))
    }
    return try decoder.next(in: &bytes, until: end, from: &position)
}

/// A frame assembled octet by octet, so that encoder and decoder are compared with a third
/// implementation.
func wire(_ first: UInt8, _ payload: [UInt8] = [], key: [UInt8]? = nil) -> [UInt8] {
    let mask: UInt8 = key == nil ? 0 : 0x80
    var frame = [first]
    switch payload.count {
    case ..<126: frame.append(mask | UInt8(payload.count))
    case ...0xFFFF: frame += [mask | 126, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
    default: frame += [mask | 127] + (0..<8).map { UInt8(payload.count >> (56 - 8 * $0) & 0xFF) }
    }
    guard let key else { return frame + payload }
    return frame + key + payload.enumerated().map { $1 ^ key[$0 % 4] }
}

/// The key of RFC 6455 §5.7, as octets and as the codec's word.
let sampleKey: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]
let sampleKeyWord: UInt32 = 0x3D21_FA37
