/// Limits of a head.
package struct HTTPHeadLimits: Hashable, Sendable {
    /// Bytes of the head including line ends; a larger one is answered with 431.
    package var maxHeadBytes = 16_384
    /// Bytes of the request target; a longer one is answered with 414.
    package var maxTargetBytes = 8_192
    /// Field lines; more are answered with 431.
    package var maxFields = 100

    package init() {}

    package init(maxHeadBytes: Int, maxTargetBytes: Int, maxFields: Int) {
        self.maxHeadBytes = maxHeadBytes
        self.maxTargetBytes = maxTargetBytes
        self.maxFields = maxFields
    }

    /// Bytes of a method; a longer one is answered with 501 (RFC 9112 §3). The longest registered
    /// one, UPDATEREDIRECTREF, has 17.
    static let maxMethodBytes = 32
}
