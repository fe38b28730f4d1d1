import ApusCodec
import ApusPlatform
import ApusTransport
import Glibc
import Logging

/// A directory whose files are served beneath a path. Its root is opened before the fork and never left: symbolic links, `..` and races
/// with them end at `openat2(RESOLVE_BENEATH)`. An absolute symbolic link whose target is beneath the root is read and followed there.
final class FileMount {
    /// Starts and ends with a slash.
    let prefix: String
    let root: OwnedDescriptor
    /// As it was named.
    let directory: String
    /// Where it is, without symbolic links: absolute links that lead there stay beneath the root.
    private let location: String
    private let dotFiles: Server.DotFiles

    /// Files up to this size, in bytes, leave in one write with their head.
    private static let smallFileBytes = 32 * 1024

    /// - Throws: `ConfigurationError.directory`.
    init(prefix: String, directory: String, dotFiles: Server.DotFiles = .refused) throws(ConfigurationError) {
        var prefix = prefix
        if !prefix.hasPrefix("/") { prefix = "/" + prefix }
        if !prefix.hasSuffix("/") { prefix += "/" }
        self.prefix = prefix
        self.directory = directory
        self.dotFiles = dotFiles
        do {
            root = try FileSystem.openDirectory(directory)
            location = try FileSystem.realPath(directory)
        } catch {
            throw .directory(directory, error.reason)
        }
    }

    func covers(_ path: String) -> Bool { path.utf8.starts(with: prefix.utf8) }

    /// Answers with the file at `path`; false if there is none.
    func serve(_ path: String, to exchange: HTTPExchange) -> Bool {
        // By octets: a combining character behind the slash would count as one with it.
        var relative = String(decoding: path.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
        guard allows(relative) else { return false }
        if relative.isEmpty || relative.hasSuffix("/") { relative += "index.html" }
        do {
            let file = SharedFile(try FileSystem.openBeneath(root.rawValue, at: location, relative))
            let information = try FileSystem.information(file.descriptor.rawValue)
            switch information.kind {
            case .regular: try send(file, information, named: relative, to: exchange)
            case .directory: redirect(path, exchange)
            case .symbolicLink, .other: return false
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

    /// Whether a path beneath the root may be served, as far as dots decide.
    private func allows(_ relative: String) -> Bool {
        if dotFiles == .served { return true }
        var segments = relative.utf8.split(separator: UInt8(ascii: "/"))[...]
        if prefix == "/", segments.first?.elementsEqual(".well-known".utf8) == true { segments = segments.dropFirst() }
        return !segments.contains { $0.first == UInt8(ascii: ".") }
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
        let validators = Validators(information, now: WallClock.seconds())
        var fields = HTTPFields()
        if let tag = validators.tag { fields.appendChecked("ETag", tag) }
        if let modified = validators.modified {
            fields.appendChecked("Last-Modified", String(decoding: HTTPDate.format(secondsSince1970: modified), as: UTF8.self))
        }
        switch validators.judge(exchange.request.fields) {
        case .notModified: return exchange.respond(.notModified, fields: fields)
        case .failed: return exchange.respond(page: .preconditionFailed, fields: fields)
        case .met: break
        }
        fields.appendChecked("Accept-Ranges", "bytes")
        let size = information.size
        let asked = validators.allowsRange(exchange.request.fields) ? exchange.request.fields["range"] : nil
        let part: Range<Int>
        var status = HTTPStatus.ok
        switch ByteRange(exchange.request.method == .get ? asked : nil, of: size) {
        case .whole: part = 0..<size
        case .part(let range):
            fields.appendChecked("Content-Range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)")
            part = range
            status = .partialContent
        case .unsatisfiable:
            fields.appendChecked("Content-Range", "bytes */\(size)")
            return exchange.respond(page: .rangeNotSatisfiable, "the file has \(size) bytes", fields: fields)
        }
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
