/// Why a pattern cannot be added to a `RouteTable`.
package enum RouteFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// The pattern, which does not begin with a slash.
    case noLeadingSlash(String)
    /// NUL, `?`, `#` or `\`.
    case byteNotAllowed(UInt8)
    /// `%` and two hexadecimal digits.
    case percentEncoded(String)
    /// `.` or `..`, which no decoded path contains.
    case dotSegment(String)
    /// A segment that is only a colon.
    case parameterWithoutName
    /// The name has other characters than ASCII letters, digits, `_` and `-`.
    case parameterNameInvalid(String)
    /// The name occurs twice in the pattern.
    case parameterRepeated(String)
    /// The segment contains `*` and more, or is not the last one.
    case misplacedRest(String)
    /// The pattern was added before.
    case repeated(String)
    /// The first pattern matches the same paths as the second, which was added before.
    case conflict(String, with: String)

    /// What is expected and what was given.
    package var description: String {
        switch self {
        case .noLeadingSlash(let pattern): "expected a path that begins with \"/\", got \(pattern.debugDescription)"
        case .byteNotAllowed(let byte): "expected a path, got \(String(UnicodeScalar(byte)).debugDescription) in it"
        case .percentEncoded(let text): "expected a decoded path, got \(text.debugDescription) in it"
        case .dotSegment(let segment): "expected a path without dot segments, got \(segment.debugDescription) in it"
        case .parameterWithoutName: "expected a parameter's name after \":\", got none"
        case .parameterNameInvalid(let name):
            "expected a parameter's name of letters, digits, \"_\" and \"-\", got \(name.debugDescription)"
        case .parameterRepeated(let name): "expected each parameter once in a path, got \(name.debugDescription) twice"
        case .misplacedRest(let segment):
            "expected \"*\" only as the whole last segment, got \(segment.debugDescription)\(segment == "*" ? " before others" : "")"
        case .repeated(let pattern): "expected each path once, got \(pattern.debugDescription) twice"
        case .conflict(let pattern, let other):
            "expected one name for each parameter, got \(pattern.debugDescription) and \(other.debugDescription)"
        }
    }
}
