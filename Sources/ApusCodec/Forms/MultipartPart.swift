/// The head of one part of a `multipart/form-data` body (RFC 7578 §4).
public struct MultipartPart: Sendable {
    /// The name of the form's field.
    public let name: String
    /// The name of the file as the client gave it; nil for a field that is not a file, and empty
    /// for a file that was not chosen.
    ///
    /// It may contain any character, also slashes, `..` and line ends: never use it as a path.
    /// `filename*` is ignored (§4.2).
    public let filename: String?
    /// The media type of the content; nil without one, which means text (§4.4).
    public let contentType: String?
    /// All fields of the part's head.
    public let fields: HTTPFields

    /// - Throws: `MultipartViolation` for a head without a name, and for an encoding of the
    ///   content, which would have to be decoded.
    init(_ fields: HTTPFields) throws(MultipartViolation) {
        guard let index = fields.firstIndex(of: "content-disposition") else { throw .dispositionMissing }
        guard fields.count(of: "content-disposition") == 1 else { throw .dispositionMalformed }
        var scanner = FieldScanner(Array(fields.storage[fields.entries[index].value]))
        guard scanner.token()?.lowercased() == "form-data", let parameters = scanner.parameters(.form) else {
            throw .dispositionMalformed
        }
        let names = parameters.filter { $0.name == "name" }
        let filenames = parameters.filter { $0.name == "filename" }
        guard let name = names.first, names.count == 1, filenames.count <= 1 else { throw .dispositionMalformed }
        if let encoding = fields["content-transfer-encoding"]?.lowercased(), !["binary", "7bit", "8bit"].contains(encoding) {
            throw .transferEncodingNotSupported
        }
        self.name = Self.decode(name.value)
        filename = filenames.first.map { Self.decode($0.value) }
        contentType = fields["content-type"]
        self.fields = fields
    }

    /// Decodes what browsers encode in names: `%22`, `%0D` and `%0A`, and nothing else (HTML
    /// standard §4.10.21.8).
    private static func decode(_ bytes: [UInt8]) -> String {
        var output: [UInt8] = []
        output.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "%"), index + 2 < bytes.count,
                let decoded = Self.encodedByte(bytes[index + 1], bytes[index + 2])
            {
                output.append(decoded)
                index += 3
            } else {
                output.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: output, as: UTF8.self)
    }

    private static func encodedByte(_ high: UInt8, _ low: UInt8) -> UInt8? {
        switch (high, low) {
        case (UInt8(ascii: "2"), UInt8(ascii: "2")): UInt8(ascii: "\"")
        case (UInt8(ascii: "0"), UInt8(ascii: "D")): ByteClass.carriageReturn
        case (UInt8(ascii: "0"), UInt8(ascii: "A")): ByteClass.lineFeed
        default: nil
        }
    }
}
