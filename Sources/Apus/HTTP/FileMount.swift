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
    /// As it was named.
    let directory: String

    /// Files up to this size, in bytes, leave in one write with their head.
    private static let smallFileBytes = 32 * 1024

    /// - Throws: `ConfigurationError.directory`.
    init(prefix: String, directory: String) throws(ConfigurationError) {
        var prefix = prefix
        if !prefix.hasPrefix("/") { prefix = "/" + prefix }
        if !prefix.hasSuffix("/") { prefix += "/" }
        self.prefix = prefix
        self.directory = directory
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
        let query = exchange.request.head.queryString.map { "?\($0)" } ?? ""
        fields.appendChecked("Location", PercentEncoding.path(path) + "/" + query)
        exchange.respond(page: .movedPermanently, fields: fields)
    }

    private func send(
        _ file: SharedFile, _ information: FileInformation, named name: String, to exchange: HTTPExchange
    ) throws(SystemError) {
        let validators = Validators(tag: Self.entityTag(information), modified: information.modified)
        var fields = HTTPFields()
        fields.appendChecked("ETag", validators.tag)
        fields.appendChecked("Last-Modified", String(decoding: HTTPDate.format(secondsSince1970: information.modified), as: UTF8.self))
        switch validators.judge(exchange.request.fields) {
        case .notModified: return exchange.respond(.notModified, fields: fields)
        case .failed: return exchange.respond(page: .preconditionFailed, fields: fields)
        case .met: break
        }
        fields.appendChecked("Accept-Ranges", "bytes")
        let size = information.size
        let asked = validators.allowsRange(exchange.request.fields) ? exchange.request.fields["range"] : nil
        let part: Range<Int>
        switch ByteRange(exchange.request.method == .get ? asked : nil, of: size) {
        case .whole: part = 0..<size
        case .part(let range):
            fields.appendChecked("Content-Range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)")
            part = range
        case .unsatisfiable:
            fields.appendChecked("Content-Range", "bytes */\(size)")
            return exchange.respond(page: .rangeNotSatisfiable, "the file has \(size) bytes", fields: fields)
        }
        let status = part.count < size ? HTTPStatus.partialContent : .ok
        fields.appendChecked("Content-Type", MediaType.of(name))
        fields.appendChecked("X-Content-Type-Options", "nosniff")
        if size <= Self.smallFileBytes {
            let bytes = try FileSystem.contents(file.descriptor.rawValue, maxBytes: size)
            // It may have shrunk since.
            return exchange.respond(
                status, fields: fields, body: status == .ok ? bytes : Array(bytes.dropFirst(part.lowerBound).prefix(part.count)))
        }
        exchange.respond(status, fields: fields, file: file, range: part)
    }

    /// Changes whenever the content does: a strong validator as long as every change moves the time or the size.
    private static func entityTag(_ information: FileInformation) -> String {
        let parts = [information.modified, information.modifiedNanoseconds, information.size].map { String($0, radix: 16) }
        return "\"" + parts.joined(separator: "-") + "\""
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
