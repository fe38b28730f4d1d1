/// Why a stream is not read. It is read when no reason is left.
///
/// Public for speed, as the declarations in `Frame.swift`: the engine looks at it in each event.
public struct PauseReasons: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8

    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The application has paused receiving.
    @inlinable public static var application: PauseReasons { PauseReasons(rawValue: 1) }
    /// A request is being answered: the next one is read after the response.
    @inlinable public static var exchange: PauseReasons { PauseReasons(rawValue: 2) }
    /// Much of the output that the peer has caused still waits for it, and further input would
    /// cause more.
    @inlinable public static var output: PauseReasons { PauseReasons(rawValue: 4) }
}
