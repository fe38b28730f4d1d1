/// What must be known of a request until its response is complete.
package struct HTTP1Exchange: Equatable, Sendable {
    /// Methods that decide how a response is framed (RFC 9112 §6.3).
    enum Method: Equatable, Sendable { case head, connect, other }

    let method: Method
    let version: HTTPVersion
    /// Whether the connection persists behind the response, as far as is known.
    var keepsAlive: Bool
    /// Whether the request proposes another protocol by `Upgrade`.
    let offersUpgrade: Bool
    /// Whether the client waits for `100 Continue` and has sent nothing of the body.
    var expectsContinue = false
    /// Interim responses so far; counted by a client.
    var interimResponses: UInt8 = 0
    /// Whether the time for the response was prolonged because the server still took the request.
    var isProlonged = false

    /// A request that a server has received.
    init(_ head: HTTPRequestHead) {
        method = Method(head.method)
        version = head.version
        keepsAlive = head.keepsAlive
        offersUpgrade = head.wantsUpgradeToWebSocket
        expectsContinue = head.expectsContinue
    }

    /// A request that a client sends.
    init(_ method: HTTPMethod, keepsAlive: Bool, offersUpgrade: Bool) {
        self.method = Method(method)
        version = .http11
        self.keepsAlive = keepsAlive
        self.offersUpgrade = offersUpgrade
    }

    /// The exchange of a request that is refused.
    init(refusing method: Method) {
        self.method = method
        version = .http11
        keepsAlive = false
        offersUpgrade = false
    }

    /// Whether the request may be answered by a change of protocol: 101, or 2xx to CONNECT.
    var proposesSwitch: Bool { offersUpgrade || method == .connect }

    /// Whether a response of this status changes the protocol.
    func switches(_ status: HTTPStatus) -> Bool { status == .switchingProtocols || method == .connect && status.isSuccessful }

    /// How the end of a response's body is found.
    func framing(of head: HTTPResponseHead) -> HTTPBodyFraming {
        switch method {
        case .head: head.bodyFraming(for: .head)
        case .connect: head.bodyFraming(for: .connect)
        case .other: head.bodyFraming(for: .get)
        }
    }
}

extension HTTP1Exchange.Method {
    init(_ method: HTTPMethod) {
        self = method == .head ? .head : method == .connect ? .connect : .other
    }
}
