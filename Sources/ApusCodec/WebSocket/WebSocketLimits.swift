/// How long the periods of a WebSocket connection may last. Times are milliseconds.
package struct WebSocketLimits: Hashable, Sendable {
    /// Silence after which the peer is sent a ping. Any byte counts as life.
    package var pingInterval: UInt64 = 30_000
    /// Silence after which the connection is given up.
    package var silenceTimeout: UInt64 = 60_000
    /// From our close frame to the peer's.
    package var closingTimeout: UInt64 = 5_000
    /// A message that has begun must grow by `minMessageProgressBytes` in each period of this
    /// length until it ends.
    package var messageProgressTimeout: UInt64 = 10_000
    /// Bytes, see `messageProgressTimeout`.
    package var minMessageProgressBytes = 1024
    /// Bytes of output that a peer must take in a period for that to be life.
    package var minOutputProgressBytes = 1024

    /// The defaults.
    package init() {}
}
