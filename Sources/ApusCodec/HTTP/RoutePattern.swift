/// A parsed pattern of a path, of a `RouteTable`.
struct RoutePattern: Sendable {
    enum Segment {
        /// A range of the pattern's UTF-8.
        case literal(Range<Int>)
        case parameter
        case rest
    }

    /// As it was added.
    let text: String
    let segments: [Segment]
    /// The names of the parameters, with the numbers of their segments.
    private let names: [(segment: Int, name: String)]

    /// Whether the pattern has neither a parameter nor `*`.
    var isLiteral: Bool { names.isEmpty }

    /// - Throws: `RouteFault`.
    init(parsing text: String) throws(RouteFault) {
        let bytes = Array(text.utf8)
        guard bytes.first == UInt8(ascii: "/") else { throw .noLeadingSlash(text) }
        try Self.checkBytes(bytes)
        var segments: [Segment] = []
        var names: [(segment: Int, name: String)] = []
        for piece in bytes.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            let segment = try Self.segment(piece, isLast: piece.endIndex == bytes.count)
            switch segment {
            case .literal: break
            case .parameter:
                let name = String(decoding: piece.dropFirst(), as: UTF8.self)
                guard !names.contains(where: { $0.name == name }) else { throw .parameterRepeated(name) }
                names.append((segments.count, name))
            case .rest: names.append((segments.count, "*"))
            }
            segments.append(segment)
        }
        self.text = text
        self.segments = segments
        self.names = names
    }

    private static func checkBytes(_ bytes: [UInt8]) throws(RouteFault) {
        for (index, byte) in bytes.enumerated() {
            switch byte {
            case 0, UInt8(ascii: "?"), UInt8(ascii: "#"), UInt8(ascii: "\\"): throw .byteNotAllowed(byte)
            case UInt8(ascii: "%") where index + 2 < bytes.count:
                guard ByteClass.hexValue(bytes[index + 1]) != nil, ByteClass.hexValue(bytes[index + 2]) != nil else { continue }
                throw .percentEncoded(String(decoding: bytes[index...index + 2], as: UTF8.self))
            default: continue
            }
        }
    }

    private static func segment(_ piece: ArraySlice<UInt8>, isLast: Bool) throws(RouteFault) -> Segment {
        if piece.count <= 2, !piece.isEmpty, piece.allSatisfy({ $0 == UInt8(ascii: ".") }) {
            throw .dotSegment(String(decoding: piece, as: UTF8.self))
        }
        if piece.first == UInt8(ascii: ":") {
            let name = piece.dropFirst()
            guard !name.isEmpty else { throw .parameterWithoutName }
            guard name.allSatisfy(isNameByte) else { throw .parameterNameInvalid(String(decoding: name, as: UTF8.self)) }
            return .parameter
        }
        guard piece.contains(UInt8(ascii: "*")) else { return .literal(piece.indices) }
        guard isLast, piece.count == 1 else { throw .misplacedRest(String(decoding: piece, as: UTF8.self)) }
        return .rest
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        ByteClass.isLetter(byte) || ByteClass.isDigit(byte) || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
    }

    /// The parameters' values in a path that matches.
    func values(in path: String) -> [(name: String, value: String)] {
        var values: [(name: String, value: String)] = []
        values.reserveCapacity(names.count)
        let utf8 = path.utf8
        let bytes = utf8.span
        // `start` is where segment `number` begins.
        var (start, number) = (1, 0)
        for (segment, name) in names {
            while number < segment, let slash = bytes.firstIndex(of: UInt8(ascii: "/"), in: start..<bytes.count) {
                start = slash + 1
                number += 1
            }
            let slash = name == "*" ? nil : bytes.firstIndex(of: UInt8(ascii: "/"), in: start..<bytes.count)
            let first = utf8.index(utf8.startIndex, offsetBy: start)
            let end = utf8.index(utf8.startIndex, offsetBy: slash ?? bytes.count)
            values.append((name, String(path[first..<end])))
        }
        return values
    }
}
