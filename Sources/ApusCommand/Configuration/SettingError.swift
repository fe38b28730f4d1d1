/// A setting that is wrong, and where it was made.
struct SettingError: Error, CustomStringConvertible {
    var place: SettingPlace?
    let reason: String

    var description: String {
        switch place {
        case .line(let number, let file): "\(file):\(number): \(reason)"
        case .option(let name): "\(reason) (--\(name))"
        case nil: reason
        }
    }

    /// The line of the file; nil for what is in no file.
    fileprivate var line: Int? {
        if case .line(let number, _) = place { number } else { nil }
    }
}

/// All settings that are wrong: those of the file in its order, then the others.
struct SettingErrors: Error, CustomStringConvertible {
    private let errors: [SettingError]

    /// More than anybody reads at once.
    private static let maxShown = 50

    init(_ errors: [SettingError]) {
        let ofFile = errors.filter { $0.line != nil }.sorted { ($0.line ?? 0) < ($1.line ?? 0) }
        self.errors = ofFile + errors.filter { $0.line == nil }
    }

    /// One line for each.
    var lines: [String] {
        let rest = errors.count - Self.maxShown
        return errors.prefix(Self.maxShown).map(\.description) + (rest > 0 ? ["\(rest) more mistakes"] : [])
    }

    /// For the log, where an error is one line.
    var description: String { lines.joined(separator: "; ") }
}

/// Where a setting was made.
enum SettingPlace: Equatable {
    case option(String)
    case line(Int, of: String)
}

/// Where each setting was made, by its key: options and keys have the same names, keys within `tls` are `tls.KEY`.
struct SettingPlaces {
    private var places: [String: SettingPlace] = [:]
    private var items: [String: [SettingPlace]] = [:]

    /// The place of a setting; nil if it was not made. Setting it forgets the places of its items.
    subscript(key: String) -> SettingPlace? {
        get { places[key] }
        set {
            places[key] = newValue
            items[key] = nil
        }
    }

    /// The place of an item of a list; the list's if that is all that is known.
    subscript(key: String, index: Int?) -> SettingPlace? {
        guard let index, let places = items[key], places.indices.contains(index) else { return self[key] }
        return places[index]
    }

    mutating func add(_ place: SettingPlace, toItemsOf key: String) { items[key, default: []].append(place) }
}
