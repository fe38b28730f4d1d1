// Resolves the `Location` of a redirect (RFC 3986 §5.2, RFC 9110 §10.2.2).
extension ClientAddress {
    /// Resolves `reference`, a response's `Location`, against this address. A WebSocket address
    /// stays one: `http` becomes `ws`. The fragment is dropped.
    ///
    /// - Throws: `ConnectError.address`.
    func resolving(_ reference: String) throws(ConnectError) -> ClientAddress {
        let text = reference.prefix { $0 != "#" }
        if let scheme = Self.schemeEnd(text) {
            let found = try ClientAddress(parsing: String(text))
            guard !found.scheme.isUnix else { throw .address(reference, "a redirect to a local socket is not followed (\(scheme))") }
            return found.speaking(webSocket: self.scheme.isWebSocket)
        }
        if text.hasPrefix("//") {
            guard !scheme.isUnix else { throw .address(reference, "expected a URL or a path, got //HOST from a local socket") }
            return try ClientAddress(parsing: "\(scheme.rawValue):\(text)")
        }
        let moved = try Self.check(Self.merge(String(text), with: target), reference)
        return ClientAddress(scheme: scheme, host: host, port: port, target: moved, credentials: credentials)
    }

    /// The scheme with the same security and transport, for WebSocket or HTTP.
    private func speaking(webSocket: Bool) -> ClientAddress {
        let spoken: Scheme =
            switch scheme {
            case .ws, .http: webSocket ? .ws : .http
            case .wss, .https: webSocket ? .wss : .https
            case .webSocketUnix, .httpUnix: webSocket ? .webSocketUnix : .httpUnix
            }
        return ClientAddress(scheme: spoken, host: host, port: port, target: target, credentials: credentials)
    }

    /// The scheme of an absolute reference; nil for a relative one.
    private static func schemeEnd(_ text: Substring) -> Substring? {
        guard let colon = text.firstRange(of: "://") else { return nil }
        let scheme = text[..<colon.lowerBound]
        return scheme.contains { "/?".contains($0) } || scheme.isEmpty ? nil : scheme
    }

    private static func check(_ target: String, _ reference: String) throws(ConnectError) -> String {
        for byte in target.utf8 where !(0x21...0x7E).contains(byte) {
            throw .address(reference, "expected visible ASCII only")
        }
        return target
    }

    /// RFC 3986 §5.2.2, the cases without scheme and authority.
    private static func merge(_ reference: String, with base: String) -> String {
        let basePath = base.prefix { $0 != "?" }
        if reference.isEmpty { return base }
        if reference.hasPrefix("?") { return basePath + reference }
        let end = reference.firstIndex(of: "?") ?? reference.endIndex
        var path = reference[..<end]
        let joined: String
        if !path.hasPrefix("/") {
            let folder = basePath[..<(basePath.lastIndex(of: "/") ?? basePath.startIndex)]
            joined = folder + "/" + path
            path = joined[...]
        }
        return removingDotSegments(path) + reference[end...]
    }

    /// RFC 3986 §5.2.4 for a path that begins with a slash.
    private static func removingDotSegments(_ path: Substring) -> String {
        let segments = path.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
        var kept: [Substring] = []
        for (index, segment) in segments.enumerated() {
            let isLast = index == segments.count - 1
            switch segment {
            case ".": if isLast { kept.append("") }
            case "..":
                _ = kept.popLast()
                if isLast { kept.append("") }
            case _: kept.append(segment)
            }
        }
        return "/" + kept.joined(separator: "/")
    }
}
