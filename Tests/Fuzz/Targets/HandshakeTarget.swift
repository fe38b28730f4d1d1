import ApusCodec

/// The opening handshake: the server's look at a request, the client's look at an answer, and what an application may put into either.
enum HandshakeTarget {
    /// RFC 6455 §1.3, so that seeds can hold its answer.
    private static let key = Array("dGhlIHNhbXBsZSBub25jZQ==".utf8)
    private static let policies: [OriginPolicy] = [
        .sameOrigin, .any, .list([]), .list(["https://example.com", "null", "example.org:8080"]),
        .list(["http://a", "[::1]:80", "", "://"]),
    ]

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        switch option & 3 {
        case 0, 1: request(input.remaining(), option)
        case 2: response(input.remaining())
        default: application(&input)
        }
    }

    // MARK: Server

    private static func request(_ bytes: [UInt8], _ option: UInt8) {
        var decoder = HTTPRequestDecoder()
        var consumed = 0
        guard let head = try? decoder.decode(bytes.span, consumed: &consumed) else { return }
        do throws(HandshakeViolation) {
            let asked = try Handshake.validate(head)
            require(head.method == .get && head.version >= .http11 && head.bodyFraming == .none && head.host != nil)
            require(head.fields["sec-websocket-version"] == "13" && head.fields.containsToken("upgrade", in: "connection"))
            require(asked.key.count == 24 && Set(asked.subprotocols).count == asked.subprotocols.count)
            for policy in policies { checkOrigin(asked.origin, head.host ?? "", policy) }
            answer(asked)
        } catch {
            require([400, 403, 405, 426].contains(error.status.code) && !error.description.isEmpty)
            require(error.status != .upgradeRequired || error.fields["sec-websocket-version"] == "13")
        }
    }

    private static func checkOrigin(_ origin: String?, _ host: String, _ policy: OriginPolicy) {
        let isAllowed = Handshake.originIsAllowed(origin: origin, host: host, allowed: policy)
        if policy == .any || origin == nil { require(isAllowed, "no browser, or any page") }
        if policy == .list([]) { require(isAllowed == (origin == nil), "nobody is on an empty list") }
        if policy == .sameOrigin, isAllowed, let origin {
            let lowercase = origin.lowercased()
            require(
                ["http://", "https://", "ws://", "wss://"].contains { lowercase.hasPrefix($0) }, "\(origin) is not \(host)'s own")
        }
    }

    /// The answer to an acceptable request satisfies a client.
    private static func answer(_ asked: ClientHandshake) {
        let chosen = Handshake.chooseSubprotocol(client: asked.subprotocols, server: ["chat", asked.subprotocols.last ?? "none"])
        require((chosen == nil) == asked.subprotocols.isEmpty)
        var fields = HTTPFields()
        fields.appendChecked("X-Own", "1")
        // Owned by the handshake, so left out.
        fields.appendChecked("Content-Length", "5")
        fields.appendChecked("Sec-WebSocket-Accept", "x")
        var output: [UInt8] = []
        Handshake.appendResponse(key: asked.key.span, subprotocol: chosen, extensions: nil, fields: fields, to: &output)
        var decoder = HTTPResponseDecoder()
        var consumed = 0
        do {
            guard let head = try decoder.decode(output.span, consumed: &consumed) else { fatalError("an answer is complete") }
            require(consumed == output.count && head.fields["x-own"] == "1")
            let agreed = try Handshake.validateResponse(head, key: asked.key.span, offeredSubprotocols: asked.subprotocols)
            require(agreed.subprotocol == chosen && agreed.extensions == nil)
        } catch {
            fatalError("our answer satisfies our client: \(error)")
        }
    }

    // MARK: Client

    private static func response(_ bytes: [UInt8]) {
        var decoder = HTTPResponseDecoder()
        var consumed = 0
        guard let head = try? decoder.decode(bytes.span, consumed: &consumed) else { return }
        do throws(ClientHandshakeError) {
            let agreed = try Handshake.validateResponse(head, key: key.span, offeredSubprotocols: ["chat", "superchat"])
            require(head.status == .switchingProtocols && head.fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            require(agreed.subprotocol == nil || ["chat", "superchat"].contains(agreed.subprotocol))
        } catch {
            require(!error.description.isEmpty)
        }
    }

    // MARK: Application

    /// What an application gives either throws, with no byte written, or is one request that a server understands as it was meant.
    private static func application(_ input: inout FuzzInput) {
        func string() -> String { String(decoding: input.bytes(upTo: 0xFF), as: UTF8.self) }
        let (host, target, origin, extensions) = (string(), string(), string(), string())
        let subprotocols = [string(), string()].filter { !$0.isEmpty }
        let (name, value) = (string(), string())
        let fields = try? HTTPFields([name: value])
        var output: [UInt8] = []
        do throws(HTTPFieldError) {
            try Handshake.appendRequest(
                host: host, target: target, key: Handshake.makeKey(nonce: [UInt8](0..<16).span).span, subprotocols: subprotocols,
                extensions: extensions.isEmpty ? nil : extensions, origin: origin.isEmpty ? nil : origin,
                fields: fields ?? HTTPFields(),
                to: &output)
        } catch {
            require(output.isEmpty && !error.description.isEmpty, "nothing is written when anything is wrong")
            return
        }
        var decoder = HTTPRequestDecoder(limits: ampleLimits)
        var consumed = 0
        let head: HTTPRequestHead?
        do throws(HTTPViolation) {
            head = try decoder.decode(output.span, consumed: &consumed)
        } catch {
            // The encoder leaves the target's inside to the application: it may be refused, but it is one request line.
            switch error {
            case .targetMalformed: return
            default: fatalError("\(error) in \(String(decoding: output, as: UTF8.self))")
            }
        }
        guard let head else { fatalError("a request is complete") }
        require(consumed == output.count && head.target == target && head.fields["host"] == host, "what was given is what arrives")
        require(fields == nil || head.fields.contains(name))
        do throws(HandshakeViolation) {
            let asked = try Handshake.validate(head)
            require(asked.subprotocols == subprotocols)
        } catch {
            // An application may give a second Origin by hand.
            guard case .originRepeated = error else { fatalError("our request satisfies our server: \(error)") }
        }
    }
}
