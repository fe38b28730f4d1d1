/// The header of one frame, to be written in front of its payload (RFC 6455 §5.2).
public struct FrameHeader: Equatable, Sendable {
    /// The header's octets, the first in the lowest byte; the first `byteCount` of these 16 are
    /// used.
    public var low: UInt64
    public var high: UInt64
    /// 2 to 14.
    public var byteCount: Int
    /// The key to mask the payload with; nil for a server's frames.
    public var maskingKey: UInt32?

    /// The longest header: 2, an extended length of 8, a key of 4.
    public static let maxBytes = 14

    /// - Parameters:
    ///   - payloadBytes: the payload's length, encoded in the shortest form.
    ///   - reservedBits: 0x40, 0x20, 0x10, set by an extension.
    ///   - maskingKey: a fresh unpredictable key for a client's frame; nil for a server's.
    @inlinable @inline(__always)
    public init(opcode: Opcode, payloadBytes: Int, isFinal: Bool = true, reservedBits: UInt8 = 0, maskingKey: UInt32? = nil) {
        precondition(payloadBytes >= 0 && (!opcode.isControl || (payloadBytes <= maxControlPayloadBytes && isFinal)))
        let first = UInt64(opcode.rawValue | (isFinal ? 0x80 : 0) | (reservedBits & 0x70))
        let mask: UInt64 = maskingKey == nil ? 0 : 0x80
        self.maskingKey = maskingKey
        high = 0
        let length = UInt64(payloadBytes)
        if payloadBytes < 126 {
            low = first | (mask | length) << 8
            byteCount = 2
        } else if payloadBytes <= 0xFFFF {
            low = first | (mask | 126) << 8 | UInt64(UInt16(length).byteSwapped) << 16
            byteCount = 4
        } else {
            let swapped = length.byteSwapped
            low = first | (mask | 127) << 8 | swapped << 16
            high = swapped >> 48
            byteCount = 10
        }
        if let maskingKey { appendKey(UInt64(maskingKey)) }
    }

    @usableFromInline
    mutating func appendKey(_ key: UInt64) {
        let shift = UInt64(byteCount) * 8
        if shift >= 64 {
            high |= key << (shift - 64)
        } else {
            low |= key << shift
            if shift > 32 { high |= key >> (64 - shift) }
        }
        byteCount += 4
    }

    /// The header's octets.
    public var bytes: [UInt8] {
        (0..<byteCount).map { index -> UInt8 in
            let word = index < 8 ? low : high
            return UInt8(truncatingIfNeeded: word >> UInt64(index % 8 * 8))
        }
    }
}

/// Complete frames as byte arrays, where a copy does not matter. Hot paths write a `FrameHeader`
/// and the payload.
package enum FrameEncoder {
    /// Appends one frame to `output`; masks it if there is a key.
    package static func append(
        _ opcode: Opcode, _ payload: borrowing RawSpan, isFinal: Bool = true, reservedBits: UInt8 = 0, maskingKey: UInt32? = nil,
        to output: inout [UInt8]
    ) {
        let header = FrameHeader(
            opcode: opcode, payloadBytes: payload.byteCount, isFinal: isFinal, reservedBits: reservedBits, maskingKey: maskingKey)
        output.append(contentsOf: header.bytes)
        let start = output.count
        output.append(payload)
        if let maskingKey { output.mask(start..<output.count, key: maskingKey) }
    }

    /// The payload of a close frame: the code in network order, then the reason, cut to 123 octets
    /// at a character. Empty for `.noStatus`. Any other code that must not be sent (RFC 6455 §7.4),
    /// such as `.abnormal` copied from another connection, becomes `.internalError`.
    package static func closePayload(code: CloseCode?, reason: String) -> [UInt8] {
        guard let code, code != .noStatus else { return [] }
        let sent = code.mayBeSent ? code : .internalError
        var payload = [UInt8(sent.rawValue >> 8), UInt8(sent.rawValue & 0xFF)]
        for character in reason.unicodeScalars {
            let scalar = UTF8.encode(character)
            guard let scalar, payload.count + scalar.count <= maxControlPayloadBytes else { break }
            payload.append(contentsOf: scalar)
        }
        return payload
    }
}
