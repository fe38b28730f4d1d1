/// A protocol version of two digits (RFC 9112 §2.3).
public struct HTTPVersion: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The digit before the dot.
    public let major: UInt8
    /// The digit after the dot.
    public let minor: UInt8

    /// Creates a version of two digits, 0–9 each.
    public init(major: UInt8, minor: UInt8) {
        self.major = major
        self.minor = minor
    }

    /// RFC 1945.
    public static var http10: HTTPVersion { HTTPVersion(major: 1, minor: 0) }
    /// RFC 9112.
    public static var http11: HTTPVersion { HTTPVersion(major: 1, minor: 1) }

    /// Compares the major, then the minor versions.
    public static func < (left: HTTPVersion, right: HTTPVersion) -> Bool {
        (left.major, left.minor) < (right.major, right.minor)
    }

    /// As sent: `HTTP/1.1`.
    public var description: String { "HTTP/\(major).\(minor)" }
}

extension HTTPVersion {
    /// Parses eight bytes such as `HTTP/1.1`, case-sensitively; nil if `range` is anything else.
    init?(_ bytes: Span<UInt8>, _ range: Range<Int>) {
        let start = range.lowerBound
        guard range.count == 8,
            bytes[start] == UInt8(ascii: "H"), bytes[start + 1] == UInt8(ascii: "T"),
            bytes[start + 2] == UInt8(ascii: "T"), bytes[start + 3] == UInt8(ascii: "P"),
            bytes[start + 4] == UInt8(ascii: "/"), bytes[start + 6] == UInt8(ascii: "."),
            ByteClass.isDigit(bytes[start + 5]), ByteClass.isDigit(bytes[start + 7])
        else { return nil }
        self.init(major: bytes[start + 5] - 0x30, minor: bytes[start + 7] - 0x30)
    }
}
