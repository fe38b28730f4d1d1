/// An error in a server's description.
package struct ServerFault {
    /// The setting that a value conflicts with.
    package enum Conflict: Equatable {
        /// The index of an earlier address.
        case address(Int)
        /// The name of a limit.
        case limit(String)
    }

    package let error: ConfigurationError
    /// The index among the addresses or the origins, for an error in one of them.
    package var index: Int?
    package var conflict: Conflict?
}
