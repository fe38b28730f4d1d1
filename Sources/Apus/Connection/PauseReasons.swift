/// Why a connection does not read. It reads when no reason is left.
struct PauseReasons: OptionSet {
    let rawValue: UInt8

    /// The handler has called `pauseReceiving`.
    static let application = PauseReasons(rawValue: 1)
    /// A request is being answered: the next one is read after it.
    static let exchange = PauseReasons(rawValue: 2)
    /// What was read would cause more output, while much of the output it has caused waits for the peer.
    static let output = PauseReasons(rawValue: 4)
}
