import ApusCodec
import ApusPlatform

extension WebSocketLimits {
    /// Converted once per worker: arithmetic with `Duration` is slow.
    init(_ limits: Limits) {
        self.init()
        pingInterval = limits.pingInterval.wholeMilliseconds
        silenceTimeout = limits.silenceTimeout.wholeMilliseconds
        closingTimeout = limits.closingTimeout.wholeMilliseconds
        messageProgressTimeout = limits.messageProgressTimeout.wholeMilliseconds
        minMessageProgressBytes = limits.minMessageProgressBytes
        minOutputProgressBytes = limits.minBodyProgressBytes
    }
}

extension TimePoint {
    init(_ time: MonotonicTime) { self.init(milliseconds: time.milliseconds) }
}
