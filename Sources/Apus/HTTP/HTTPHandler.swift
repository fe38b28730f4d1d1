/// An application's handler of one exchange: one object per request, called on its worker's thread,
/// for bodies that are received or sent in pieces.
///
/// Order: `received` for each piece of the request's body, `ended`, and `writable` at any time;
/// last, and exactly once, `completed` or `aborted`. A response may begin and end in any of them,
/// before `ended` too: then the rest of the body is discarded. An error that a method throws is
/// answered as in `Server.get`, or aborts a response that has begun.
public protocol HTTPHandler: AnyObject {
    /// A piece of the request's body has arrived; it is valid during the call only.
    /// `HTTPExchange.pauseReceiving` stops further pieces.
    func received(_ piece: RawSpan, on exchange: HTTPExchange) throws

    /// The request is complete.
    func ended(_ exchange: HTTPExchange) throws

    /// Nothing is buffered any more. Called once after any number of `HTTPExchange.requestWritable`
    /// calls.
    func writable(_ exchange: HTTPExchange)

    /// The whole response was handed to the kernel, or is queued on a connection that closes behind
    /// it.
    func completed(_ exchange: HTTPExchange)

    /// The exchange has ended without a complete response: its client has gone or was too slow, a
    /// deadline has passed, or the application has aborted it.
    func aborted(_ exchange: HTTPExchange, reason: String)
}

extension HTTPHandler {
    public func received(_ piece: RawSpan, on exchange: HTTPExchange) throws {}
    public func writable(_ exchange: HTTPExchange) {}
    public func completed(_ exchange: HTTPExchange) {}
    public func aborted(_ exchange: HTTPExchange, reason: String) {}
}
