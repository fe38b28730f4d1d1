import ApusCodec
import ApusPlatform
import ApusTransport
import Glibc
import Logging

/// A directory whose files are served beneath a path. Its root is opened before the fork and never left: symbolic links, `..` and races
/// with them end at `openat2(RESOLVE_BENEATH)`.
final class FileMount {
    /// Starts and ends with a slash.
    let prefix: String
    let root: OwnedDescriptor

    /// Files up to this size, in bytes, leave in one write with their head.
    private static let smallFileBytes = 32 * 1024

    /// - Throws: `ConfigurationError.directory`.
    init(prefix: String, directory: String) throws(ConfigurationError) {
        var prefix = prefix
        if !prefix.hasPrefix("/") { prefix = "/" + prefix }
        if !prefix.hasSuffix("/") { prefix += "/" }
        self.prefix = prefix
        do {
            root = try FileSystem.openDirectory(directory)
        } catch {
            throw .directory(directory, error.reason)
        }
    }

    func covers(_ path: String) -> Bool { path.utf8.starts(with: prefix.utf8) }

    /// Answers with the file at `path`; false if there is none.
    func serve(_ path: String, to exchange: HTTPExchange) -> Bool {
        // By octets: a combining character behind the slash would count as one with it.
        var relative = String(decoding: path.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
        if relative.isEmpty || relative.hasSuffix("/") { relative += "index.html" }
        do {
            let file = SharedFile(try FileSystem.openBeneath(root.rawValue, relative))
            let information = try FileSystem.information(file.descriptor.rawValue)
            switch information.kind {
            case .regular: try send(file, information, named: relative, to: exchange)
            case .directory: redirect(path, exchange)
            case .other: return false
            }
            return true
        } catch {
            switch error.code {
            case ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP, EXDEV, ENXIO: return false
            case EACCES, EPERM: exchange.respond(page: .forbidden)
            case EMFILE, ENFILE, ENOMEM: exchange.respond(page: .serviceUnavailable)
            default:
                exchange.context.logger.error("cannot serve \(path): \(error)")
                exchange.respond(page: .internalServerError)
            }
            return true
        }
    }

    /// A directory without its slash: relative links of its page would miss.
    private func redirect(_ path: String, _ exchange: HTTPExchange) {
        var fields = HTTPFields()
        fields.appendChecked("Location", PercentEncoding.path(path) + "/")
        exchange.respond(page: .movedPermanently, fields: fields)
    }

    private func send(
        _ file: SharedFile, _ information: FileInformation, named name: String, to exchange: HTTPExchange
    ) throws(SystemError) {
        let tag = Self.entityTag(information)
        var fields = HTTPFields()
        fields.appendChecked("ETag", tag)
        fields.appendChecked("Last-Modified", String(decoding: HTTPDate.format(secondsSince1970: information.modified), as: UTF8.self))
        if Self.isUnchanged(exchange.request.fields, tag: tag, modified: information.modified) {
            return exchange.respond(.notModified, fields: fields)
        }
        fields.appendChecked("Content-Type", MediaType.of(name))
        fields.appendChecked("X-Content-Type-Options", "nosniff")
        if information.size <= Self.smallFileBytes {
            let bytes = try FileSystem.contents(file.descriptor.rawValue, maxBytes: information.size)
            return exchange.respond(fields: fields, body: bytes)
        }
        exchange.respond(.ok, fields: fields, file: file, range: 0..<information.size)
    }

    /// Changes whenever the content does: a strong validator as long as every change moves the time or the size.
    private static func entityTag(_ information: FileInformation) -> String {
        let parts = [information.modified, information.modifiedNanoseconds, information.size].map { String($0, radix: 16) }
        return "\"" + parts.joined(separator: "-") + "\""
    }

    /// RFC 9110 §13.2.2: If-None-Match decides alone when it is there.
    private static func isUnchanged(_ fields: HTTPFields, tag: String, modified: Int) -> Bool {
        if let match = fields["if-none-match"] {
            return match.split(separator: ",").contains { candidate in
                var text = candidate.drop { $0 == " " || $0 == "\t" }
                while text.last == " " || text.last == "\t" { text.removeLast() }
                if text.hasPrefix("W/") { text = text.dropFirst(2) }
                return text == "*" || text == tag
            }
        }
        guard let since = fields["if-modified-since"], let seconds = HTTPDate.parse(since) else { return false }
        return modified <= seconds
    }
}

/// Paths as they stand in a `Location`.
enum PercentEncoding {
    static func path(_ path: String) -> String {
        var result = ""
        for byte in path.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "/"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
                result.unicodeScalars.append(UnicodeScalar(byte))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                result += digits.count == 1 ? "%0\(digits)" : "%\(digits)"
            }
        }
        return result
    }
}
