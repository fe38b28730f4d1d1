/// What an HTTP/1.1 connection may use and how long each of its periods may last.
package struct HTTP1Limits: Hashable, Sendable {
    /// Of a request's head, or of a response's.
    package var head = HTTPHeadLimits()
    /// Bytes of a received body, unless `HTTP1Cycle.limitBody` sets another limit for it.
    package var maxBodyBytes = 1 << 20
    /// From the first byte of a request, or from the start of the connection, to the end of its
    /// head. Milliseconds, as all times here.
    package var headTimeout: UInt64 = 10_000
    /// In which `minBodyProgressBytes` of a body must arrive or depart. A client's received body
    /// needs one byte.
    package var bodyTimeout: UInt64 = 10_000
    /// Bytes, see `bodyTimeout`. A peer that sends or takes one byte now and then does not hold its
    /// connection for long.
    package var minBodyProgressBytes = 1024
    /// Between a response and the next request.
    package var keepAliveTimeout: UInt64 = 60_000
    /// From the end of a request to its response: the application's time at a server, the server's
    /// at a client.
    package var answerTimeout: UInt64 = 30_000

    /// Interim responses before a final one.
    static let maxInterimResponses = 16

    /// The defaults.
    package init() {}
}
