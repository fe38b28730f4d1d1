/// An invalid setting, and its location.
struct SettingError: Error, CustomStringConvertible {
    var location: SettingLocation?
    let reason: String

    var description: String {
        switch location {
        case .line(let number, let file): "\(file):\(number): \(reason)"
        case .option(let name): "\(reason) (--\(name))"
        case nil: reason
        }
    }

    /// The line of the file; nil for an option.
    fileprivate var line: Int? {
        if case .line(let number, _) = location { number } else { nil }
    }
}

/// All invalid settings: those of the file in its order, then the others.
struct SettingErrors: Error, CustomStringConvertible {
    private let errors: [SettingError]

    /// The limit of printed errors.
    private static let maxShown = 50

    init(_ errors: [SettingError]) {
        let ofFile = errors.filter { $0.line != nil }.sorted { ($0.line ?? 0) < ($1.line ?? 0) }
        self.errors = ofFile + errors.filter { $0.line == nil }
    }

    /// One line for each error.
    var lines: [String] {
        let rest = errors.count - Self.maxShown
        return errors.prefix(Self.maxShown).map(\.description) + (rest > 0 ? ["\(rest) more errors"] : [])
    }

    /// All errors in one line, for the log.
    var description: String { lines.joined(separator: "; ") }
}

/// The location of a setting.
enum SettingLocation: Equatable {
    case option(String)
    case line(Int, of: String)
}

/// The locations of settings by key. Options and keys have the same names; keys within `tls` are
/// `tls.KEY`.
struct SettingLocations {
    private var locations: [String: SettingLocation] = [:]
    private var items: [String: [SettingLocation]] = [:]

    /// The location of a setting; nil if it is not set. Assigning it removes the locations of its
    /// items.
    subscript(key: String) -> SettingLocation? {
        get { locations[key] }
        set {
            locations[key] = newValue
            items[key] = nil
        }
    }

    /// The location of an item of a list; that of the list if it is unknown.
    subscript(key: String, index: Int?) -> SettingLocation? {
        guard let index, let locations = items[key], locations.indices.contains(index) else { return self[key] }
        return locations[index]
    }

    mutating func add(_ location: SettingLocation, toItemsOf key: String) { items[key, default: []].append(location) }
}
