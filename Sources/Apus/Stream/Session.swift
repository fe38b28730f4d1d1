import ApusPlatform
import ApusTransport

/// A protocol engine on a `ByteStream`: HTTP requests, a WebSocket, a client's opening handshake, a
/// client's exchange.
///
/// It is called per received buffer, drained queue and deadline, never per frame; the result is the
/// stream's next step. Outside these calls, an application's actions use `ByteStream.follow`.
protocol Session: AnyObject {
    /// Processes received bytes from `position` to `end`. The stream keeps bytes behind the new
    /// `position` and passes them again.
    func received(_ bytes: ReceiveBuffer, _ position: inout Int, until end: Int) -> Next

    /// Where the rest of the current message can be received directly, and at most how many bytes;
    /// nil if nowhere.
    var directBuffer: (chunk: ByteChunk, maxBytes: Int)? { get }

    /// `count` bytes were received directly.
    func receivedDirectly(_ count: Int) -> Next

    /// The peer has ended its output, and all of it was passed to `received`.
    func inputEnded() -> Next

    /// The peer has shut down its sending side while reading was paused.
    ///
    /// - Parameter hasUnread: whether some of its output may be unread.
    func peerEndedWhilePaused(hasUnread: Bool) -> Next

    /// Reading has resumed after the peer took output that its messages had caused.
    func resumed()

    /// `count` bytes of output were sent.
    func outputSent(_ count: Int)

    /// All output was sent.
    func outputDrained()

    /// When `deadlineReached` must be called; nil for never. Computed from the state. Call
    /// `ByteStream.deadlineChanged` whenever it may have become earlier.
    var deadline: MonotonicTime? { get }

    /// The deadline has passed.
    func deadlineReached(at now: MonotonicTime) -> Next

    /// The TLS handshake is done.
    func secured()

    /// The TLS handshake failed, or timed out (nil). The stream is closed after this call.
    func handshakeFailed(_ error: TLSError?)

    /// The peer's first bytes are not TLS.
    ///
    /// - Returns: whether the session accepts them; they are then passed to `received`.
    func acceptsPlain(_ bytes: [UInt8]) -> Bool

    /// Whether pending input is processed after a failed write: the peer may have sent something
    /// before it stopped reading.
    var readsAfterFailedWrite: Bool { get }

    /// The session, if it is an open WebSocket.
    var openWebSocket: WebSocket? { get }

    /// Whether no request and no message has begun, and nothing is left to send.
    var isIdle: Bool { get }

    /// The stream has ended, or writes only what is queued. Called once, last, but not for a
    /// session that `ByteStream.become` has replaced.
    func ended(_ end: StreamEnd)
}

extension Session {
    var directBuffer: (chunk: ByteChunk, maxBytes: Int)? { nil }
    func receivedDirectly(_ count: Int) -> Next { .more }
    func inputEnded() -> Next { .close("") }
    func peerEndedWhilePaused(hasUnread: Bool) -> Next { .more }
    func resumed() {}
    func outputSent(_ count: Int) {}
    func outputDrained() {}
    func secured() {}
    func handshakeFailed(_ error: TLSError?) {}
    func acceptsPlain(_ bytes: [UInt8]) -> Bool { false }
    var readsAfterFailedWrite: Bool { true }
    var isIdle: Bool { false }
    var openWebSocket: WebSocket? { nil }
}

/// The stream's next step after a call of its session.
enum Next {
    /// Continue: pass input to the session, or to the one that replaced it.
    case more
    /// End when all output was sent; write nothing more.
    case finish(Ending)
    /// Close at once; the reason is passed to `Session.ended`.
    case close(String)
}

/// How a stream ends after its last output.
enum Ending {
    /// Close at once.
    case close
    /// Shut down the sending side and wait a moment for the peer to close: closing with unread
    /// input would reset the connection.
    case linger
}

/// How a stream ended.
struct StreamEnd {
    /// The TLS alert with which the peer ended the connection.
    var refusal: String?
    /// Why this side ended the stream; empty if the peer or the network did.
    var reason = ""
}
