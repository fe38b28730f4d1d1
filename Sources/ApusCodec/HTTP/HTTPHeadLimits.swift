/// How large a head may be.
package struct HTTPHeadLimits: Sendable {
    /// Bytes of the whole head with its line ends; above it 431.
    package var maxHeadBytes = 16_384
    /// Bytes of the request target; above it 414.
    package var maxTargetBytes = 8_192
    /// Field lines; above it 431.
    package var maxFields = 100

    /// The defaults.
    package init() {}

    /// The given limits.
    package init(maxHeadBytes: Int, maxTargetBytes: Int, maxFields: Int) {
        self.maxHeadBytes = maxHeadBytes
        self.maxTargetBytes = maxTargetBytes
        self.maxFields = maxFields
    }

    /// Bytes of a method; above it 501 (RFC 9112 §3). The longest registered one, UPDATEREDIRECTREF, has 17.
    static let maxMethodBytes = 32
}
