import ApusPlatform

/// The contents of the files for listeners' TLS: certificates, keys, authorities. A process that
/// may not open files receives them from another.
package final class TLSFiles {
    private enum Source: UInt8 { case file, provider }

    private struct Entry: Hashable {
        let source: Source
        /// The file's path, or a description of what a provider returns.
        let name: String
    }

    private var contents: [Entry: [UInt8]] = [:]
    private let mayRead: Bool

    /// Creates an empty cache that reads each file on first use.
    package init() { mayRead = true }

    // MARK: Reading

    func contents(of file: String) throws(TLSSetupError) -> [UInt8] {
        try contents(of: Entry(source: .file, name: file)) { () throws(TLSSetupError) in try Self.read(file) }
    }

    func contents(named name: String, from provider: () throws -> [UInt8]) throws(TLSSetupError) -> [UInt8] {
        try contents(of: Entry(source: .provider, name: name)) { () throws(TLSSetupError) in
            do { return try provider() } catch { throw TLSSetupError("\(name): \(error)") }
        }
    }

    private func contents(of entry: Entry, read: () throws(TLSSetupError) -> [UInt8]) throws(TLSSetupError) -> [UInt8] {
        if let known = contents[entry] { return known }
        guard mayRead else { throw TLSSetupError("\"\(entry.name)\" was not handed over") }
        let bytes = try read()
        contents[entry] = bytes
        return bytes
    }

    private static func read(_ file: String) throws(TLSSetupError) -> [UInt8] {
        let bytes: [UInt8]?
        do {
            bytes = try FileSystem.contents(of: file, maxBytes: 1 << 20)
        } catch {
            throw TLSSetupError("cannot read \"\(file)\": \(error.reason)", isUnreadable: true)
        }
        guard let bytes else { throw TLSSetupError("cannot read \"\(file)\": not a regular file") }
        return bytes
    }

    /// Whether a file's contents have changed, or it is unreadable. Providers are not called.
    package var haveChanged: Bool {
        contents.contains { entry, bytes in
            switch entry.source {
            case .file: (try? Self.read(entry.name)) != bytes
            case .provider: false
            }
        }
    }

    // MARK: Handing over

    /// All contents, private keys included.
    package var encoded: [UInt8] {
        contents.reduce(into: []) { record, entry in
            record.append(entry.key.source.rawValue)
            for part in [Array(entry.key.name.utf8), entry.value] {
                record += (0..<4).map { UInt8(truncatingIfNeeded: part.count >> (8 * $0)) } + part
            }
        }
    }

    /// Decodes the `encoded` contents of another process; no further file is read.
    package init?(encoded record: [UInt8]) {
        mayRead = false
        var rest = record[...]
        func part() -> ArraySlice<UInt8>? {
            guard rest.count >= 4 else { return nil }
            let count = rest.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
            rest = rest.dropFirst(4)
            guard count <= rest.count else { return nil }
            defer { rest = rest.dropFirst(count) }
            return rest.prefix(count)
        }
        while let tag = rest.popFirst() {
            guard let source = Source(rawValue: tag), let name = part(), let bytes = part() else { return nil }
            contents[Entry(source: source, name: String(decoding: name, as: UTF8.self))] = Array(bytes)
        }
    }
}
