public import Apus
#if canImport(FoundationEssentials)
    public import FoundationEssentials
#else
    public import Foundation
#endif

extension Response {
    /// A response with a value as JSON (RFC 8259).
    ///
    /// - Parameter encoder: nil: keys are sorted, and slashes are not escaped.
    /// - Throws: what `encoder` throws; a handler that does not catch it is answered with 500.
    public static func json(
        _ value: some Encodable, _ status: HTTPStatus = .ok, fields: HTTPFields = [:], encoder: JSONEncoder? = nil
    ) throws -> Response {
        .bytes([UInt8](try (encoder ?? sortedEncoder).encode(value)), status, fields: fields, type: "application/json")
    }
}

private let sortedEncoder: JSONEncoder = {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return encoder
}()

extension HTTPRequest {
    /// The body, decoded from JSON.
    ///
    /// - Throws: `Rejection` with 400 and the reason if the body is not JSON of this type.
    public func decode<Value: Decodable>(_ type: Value.Type = Value.self, decoder: JSONDecoder = JSONDecoder()) throws -> Value {
        do {
            return try decoder.decode(type, from: Data(body))
        } catch let error as DecodingError {
            throw Rejection(.badRequest, "expected JSON of \(Value.self): \(error.reason)")
        }
    }
}

extension DecodingError {
    /// What was expected, and where.
    fileprivate var reason: String {
        let (text, context): (String, Context) =
            switch self {
            case .keyNotFound(let key, let context): ("the key \(key.stringValue.debugDescription) is missing", context)
            case .typeMismatch(let type, let context): ("expected \(type)", context)
            case .valueNotFound(let type, let context): ("expected \(type), got null", context)
            case .dataCorrupted(let context): (context.debugDescription, context)
            @unknown default: ("\(self)", Context(codingPath: [], debugDescription: ""))
            }
        let path = context.codingPath.map(\.stringValue).joined(separator: ".")
        return path.isEmpty ? text : "\(text) at \(path.debugDescription)"
    }
}
