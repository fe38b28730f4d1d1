/// A value of a YAML file, and where it begins.
struct YAMLNode {
    /// A position in the file, counted from 1; columns are characters.
    struct Mark: Equatable {
        var line: Int
        var column: Int
    }

    /// A key and its value.
    struct Entry {
        let key: String
        let mark: Mark
        let value: YAMLNode
    }

    enum Value {
        /// A text. Only a plain one, without quotes and without the tag `!!str`, can be null.
        case scalar(String, isPlain: Bool)
        case sequence([YAMLNode])
        /// In the order of the file, without duplicate keys.
        case mapping([Entry])
    }

    let value: Value
    let mark: Mark

    /// The text of a scalar; nil for anything else.
    var text: String? {
        if case .scalar(let text, _) = value { text } else { nil }
    }

    /// Its description for an error: the text in quotes, or the kind.
    var shown: String {
        switch value {
        case .scalar(let text, let isPlain): text.isEmpty && isPlain ? "nothing" : Quotation.of(text)
        case .sequence: "a list"
        case .mapping: "keys with values"
        }
    }

    /// Whether it is YAML's null in the core schema (YAML 1.2.2 §10.3.2).
    var isNull: Bool {
        if case .scalar(let text, isPlain: true) = value { ["", "~", "null", "Null", "NULL"].contains(text) } else { false }
    }
}

/// An error in a file's YAML.
struct YAMLError: Error, Equatable, CustomStringConvertible {
    let mark: YAMLNode.Mark
    let description: String
}
