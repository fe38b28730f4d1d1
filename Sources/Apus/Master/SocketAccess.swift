import ApusPlatform

/// Owner, group and mode of a Unix socket's file. Clients need write permission to connect. Nil
/// keeps the default: the server's user and group, and the mode of the umask.
public struct SocketAccess: Hashable, Sendable, CustomStringConvertible {
    /// 0 to 0o777.
    public var mode: UInt32?
    /// A user's name or number. Only root can change the owner.
    public var owner: String?
    /// A group's name or number.
    public var group: String?

    public init(mode: UInt32? = nil, owner: String? = nil, group: String? = nil) {
        self.mode = mode
        self.owner = owner
        self.group = group
    }

    /// The suffix of the path in an address: `,mode=0660,owner=www,group=www`.
    public var description: String {
        (mode.map { ",mode=0" + String($0, radix: 8) } ?? "") + (owner.map { ",owner=\($0)" } ?? "") + (group.map { ",group=\($0)" } ?? "")
    }

    /// Parses one setting, such as `mode=0660`.
    ///
    /// - Parameter text: the whole address, for errors.
    /// - Throws: `ConfigurationError.invalidAddress`.
    mutating func set(_ setting: Substring, of text: String) throws(ConfigurationError) {
        let parts = setting.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let value = String(parts[1])
        switch parts[0] {
        case "mode":
            guard let mode = UInt32(value, radix: 8), mode <= 0o777, !value.hasPrefix("+") else {
                throw .invalidAddress(text, "mode: expected an octal number from 0 to 0777, got \"\(value)\"")
            }
            self.mode = mode
        case "owner" where !value.isEmpty: owner = value
        case "group" where !value.isEmpty: group = value
        default:
            throw .invalidAddress(text, "expected mode=OCTAL, owner=USER or group=GROUP behind the path, got \"\(setting)\"")
        }
    }

    /// The numbers of owner and group; nil where none is set.
    ///
    /// - Throws: `ConfigurationError.invalidAddress` for an unknown user or group.
    private func identity(for address: ListenAddress) throws(ConfigurationError) -> (user: UInt32?, group: UInt32?) {
        func find(_ kind: String, _ name: String?, _ look: (String) throws(SystemError) -> UInt32) throws(ConfigurationError) -> UInt32? {
            guard let name else { return nil }
            do throws(SystemError) { return try look(name) } catch {
                let reason = error.code == SystemError.noSuchFile ? "there is no \(kind) \"\(name)\"" : "\(error)"
                throw .invalidAddress("\(address)", reason)
            }
        }
        let user = try find("user", owner) { name throws(SystemError) in try Confinement.find(user: name).user }
        return (user, try find("group", group) { name throws(SystemError) in try Confinement.find(group: name) })
    }

    func check(for address: ListenAddress) throws(ConfigurationError) {
        _ = try identity(for: address)
        if let mode, mode > 0o777 { throw .invalidAddress("\(address)", "mode: expected 0 to 0777") }
    }

    /// Sets owner, group and mode of the file at `path`.
    func apply(to path: String, for address: ListenAddress) throws(ConfigurationError) {
        let identity = try identity(for: address)
        do {
            try FileSystem.setAccess(of: path, mode: mode, user: identity.user, group: identity.group)
        } catch {
            throw .listen("cannot set the access of \(address): \(error)")
        }
    }
}
