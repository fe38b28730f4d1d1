/// The boundary between the parts of a multipart body: 1 to 70 characters (RFC 2046 §5.1.1).
package struct MultipartBoundary: Hashable, Sendable, CustomStringConvertible {
    /// Without the two hyphens before it.
    let bytes: [UInt8]

    /// - Throws: `MultipartViolation.boundaryMalformed`.
    package init(_ text: String) throws(MultipartViolation) { try self.init(bytes: Array(text.utf8)) }

    private init(bytes: [UInt8]) throws(MultipartViolation) {
        guard (1...70).contains(bytes.count), bytes.last != ByteClass.space, bytes.allSatisfy(Self.isAllowed) else {
            throw .boundaryMalformed
        }
        self.bytes = bytes
    }

    /// The boundary in the value of `Content-Type: multipart/form-data; boundary=…`, a token or a
    /// quoted string.
    ///
    /// - Throws: `MultipartViolation.notFormData`, `.boundaryMissing`, `.boundaryMalformed`.
    package init(contentType: String?) throws(MultipartViolation) {
        guard let contentType else { throw .notFormData }
        var scanner = FieldScanner(contentType)
        guard scanner.token()?.lowercased() == "multipart", scanner.skip(UInt8(ascii: "/")),
            scanner.token()?.lowercased() == "form-data"
        else { throw .notFormData }
        guard let parameters = scanner.parameters() else { throw .boundaryMalformed }
        let boundaries = parameters.filter { $0.name == "boundary" }
        guard let boundary = boundaries.first else { throw .boundaryMissing }
        // Parsers would disagree about which one is meant.
        guard boundaries.count == 1 else { throw .boundaryMalformed }
        try self.init(bytes: boundary.value)
    }

    /// The text of the boundary.
    package var description: String { String(decoding: bytes, as: UTF8.self) }

    /// bchars: letters, digits, space and `'()+_,-./:=?`.
    private static func isAllowed(_ byte: UInt8) -> Bool {
        if ByteClass.isLetter(byte) || ByteClass.isDigit(byte) { return true }
        switch byte {
        case ByteClass.space, UInt8(ascii: "'"), UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "+"), UInt8(ascii: "_"),
            UInt8(ascii: ","), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: "="),
            UInt8(ascii: "?"):
            return true
        default: return false
        }
    }
}
