/// Something that keeps a server from running as it is described.
package struct ServerFault {
    /// What a value does not go with.
    package enum Conflict: Equatable {
        /// The index of an earlier address.
        case address(Int)
        /// The name of a limit.
        case limit(String)
    }

    package let error: ConfigurationError
    /// The index of what is refused among the addresses or the origins, if it is one of them.
    package var index: Int?
    package var conflict: Conflict?
}
