import ApusCodec

/// Requires user and password (RFC 7617) at a path and below it, for routes, files and WebSockets.
/// Without TLS everybody on the way can read both.
public struct BasicAuthentication: Middleware {
    private let place: PathPrefix
    private let realm: String
    private let isValid: (_ user: String, _ password: String) throws -> Bool

    /// - Parameters:
    ///   - realm: what the browser shows, in printable ASCII.
    ///   - isValid: whether a user and a password are valid, called for each request.
    public init(at path: String = "/", realm: String, _ isValid: @escaping (_ user: String, _ password: String) throws -> Bool) {
        place = PathPrefix(path)
        self.realm = realm
        self.isValid = isValid
    }

    /// Requires one of some users, and its password.
    public init(at path: String = "/", realm: String, passwords: [String: String]) {
        self.init(at: path, realm: realm) { user, password in
            // An unknown user takes as long as a known one.
            let expected = passwords[user]
            return Self.isEqual(expected ?? password, password) && expected != nil
        }
    }

    public var fault: String? {
        for byte in realm.utf8 where !(0x20..<0x7F).contains(byte) || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") {
            return "expected a realm of printable ASCII without quotes and backslashes, got \(realm.debugDescription)"
        }
        return place.fault
    }

    public func filter(_ request: HTTPRequest) throws -> Response? {
        guard place.covers(request.path) else { return nil }
        if let credentials = request.basicCredentials, try isValid(credentials.user, credentials.password) { return nil }
        return .page(.unauthorized, fields: ["WWW-Authenticate": "Basic realm=\"\(realm)\", charset=\"UTF-8\""])
    }

    /// Compares in a time that does not tell how much is equal.
    private static func isEqual(_ left: String, _ right: String) -> Bool {
        var difference = left.utf8.count ^ right.utf8.count
        for (mine, theirs) in zip(left.utf8, right.utf8) { difference |= Int(mine ^ theirs) }
        return difference == 0
    }
}
