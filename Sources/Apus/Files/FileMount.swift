import ApusCodec
import ApusPlatform
import ApusTransport
import Glibc
import Logging

/// A directory whose files are served below a path. The root is opened before the fork;
/// `openat2(RESOLVE_BENEATH)` keeps `..`, symbolic links and races inside it. An absolute symbolic
/// link to a target below the root is resolved against the root.
final class FileMount {
    /// Begins and ends with a slash.
    let prefix: String
    let root: OwnedDescriptor
    /// The directory's path as configured.
    let directory: String
    /// The real path of the root, which absolute symbolic links are compared with.
    private let location: String
    private let options: FileOptions

    /// Files up to this size, in bytes, are sent in one write with the head.
    private static let smallFileBytes = 32 * 1024

    /// - Throws: `ConfigurationError.directory`.
    init(prefix: String, directory: String, options: FileOptions = FileOptions()) throws(ConfigurationError) {
        var prefix = prefix
        if !prefix.hasPrefix("/") { prefix = "/" + prefix }
        if !prefix.hasSuffix("/") { prefix += "/" }
        self.prefix = prefix
        self.directory = directory
        self.options = options
        do {
            root = try FileSystem.openDirectory(directory)
            location = try FileSystem.realPath(directory)
        } catch {
            throw .directory(directory, error.reason)
        }
    }

    /// Whether a path is below the prefix, or the prefix without its slash.
    func covers(_ path: String) -> Bool { path.utf8.starts(with: prefix.utf8) || isRootWithoutSlash(path) }

    private func isRootWithoutSlash(_ path: String) -> Bool {
        path.utf8.count + 1 == prefix.utf8.count && prefix.utf8.starts(with: path.utf8)
    }

    /// The response with the file at a request's path; nil if there is none.
    func response(to request: HTTPRequest, at path: String) -> Response? {
        if isRootWithoutSlash(path) { return redirect(path, request) }
        // Drop octets, not characters: a combining character after the slash would be dropped with
        // it.
        var relative = String(decoding: path.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
        guard allows(relative) else { return nil }
        if relative.isEmpty || relative.hasSuffix("/") { relative += "index.html" }
        return response(to: request, named: relative, for: Response()) { redirect(path, request) }
    }

    /// The response with a file, with the status and the fields of another response; nil if there
    /// is none.
    ///
    /// - Parameter directory: the response for a directory.
    func response(
        to request: HTTPRequest, named name: String, for base: Response, directory: () -> Response? = { nil }
    ) -> Response? {
        do {
            let (file, information) = try open(name)
            switch information.kind {
            case .regular:
                guard options.isPrecompressed else { return try response(to: request, with: file, information, named: name, for: base) }
                var base = base
                base.fields.append(contentsOf: ["Vary": "Accept-Encoding"])
                guard let (coding, file, information) = precompressed(name, for: request) else {
                    return try response(to: request, with: file, information, named: name, for: base)
                }
                base.fields.append(contentsOf: ["Content-Encoding": coding.rawValue])
                return try response(to: request, with: file, information, named: name, for: base)
            case .directory: return directory()
            case .symbolicLink, .other: return nil
            }
        } catch {
            switch error.code {
            case ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP, EXDEV, ENXIO: return nil
            case EACCES, EPERM: return .page(.forbidden)
            case EMFILE, ENFILE, ENOMEM: return .page(.serviceUnavailable)
            default:
                request.worker.logger.error("cannot serve \(name.debugDescription): \(error)")
                return .page(.internalServerError)
            }
        }
    }

    private func open(_ name: String) throws(SystemError) -> (file: SharedFile, information: FileInformation) {
        let file = SharedFile(try FileSystem.openBeneath(root.rawValue, at: location, name))
        return (file, try FileSystem.information(file.descriptor.rawValue))
    }

    /// The file with a coding of `name` that the client prefers; nil if there is none, or it
    /// prefers the file as it is.
    private func precompressed(
        _ name: String, for request: HTTPRequest
    ) -> (coding: ContentCoding, file: SharedFile, information: FileInformation)? {
        var candidates: [ContentCoding] = [.br, .zstd, .gzip, .identity]
        let accepted = AcceptEncoding(request.fields)
        while let coding = accepted.preferred(of: candidates), let suffix = Self.suffixes[coding] {
            if let (file, information) = try? open(name + suffix), information.kind == .regular { return (coding, file, information) }
            candidates.removeAll { $0 == coding }
        }
        return nil
    }

    private static let suffixes: [ContentCoding: String] = [.br: ".br", .zstd: ".zst", .gzip: ".gz"]

    /// Whether the rule for dot files allows a path below the root.
    private func allows(_ relative: String) -> Bool {
        if options.dotFiles == .served { return true }
        var segments = relative.utf8.split(separator: UInt8(ascii: "/"))[...]
        if prefix == "/", segments.first?.elementsEqual(".well-known".utf8) == true { segments = segments.dropFirst() }
        return !segments.contains { $0.first == UInt8(ascii: ".") }
    }

    /// Redirects to the path with a slash: without it the page's relative links would not resolve.
    private func redirect(_ path: String, _ request: HTTPRequest) -> Response {
        var fields = HTTPFields()
        let query = request.head.queryString.map { "?\($0)" } ?? ""
        fields.appendChecked("Location", PercentEncoding.path(path) + "/" + query)
        return .page(.movedPermanently, fields: fields)
    }

    private func response(
        to request: HTTPRequest, with file: SharedFile, _ information: FileInformation, named name: String, for base: Response
    ) throws(SystemError) -> Response {
        var fields = base.fields
        let size = information.size
        var parts = [0..<size]
        var status = base.status
        if let cacheControl = options.cacheControl, !fields.contains("cache-control") {
            fields.appendChecked("Cache-Control", cacheControl)
        }
        if status == .ok {
            let validators = Preconditions(information, now: WallClock.seconds())
            if let tag = validators.tag { fields.appendChecked("ETag", tag) }
            if let modified = validators.modified {
                fields.appendChecked("Last-Modified", String(decoding: HTTPDate.format(secondsSince1970: modified), as: UTF8.self))
            }
            switch validators.evaluate(request.fields) {
            case .notModified: return Response(.notModified, fields: fields)
            case .failed: return .page(.preconditionFailed, fields: fields)
            case .met: break
            }
            fields.appendChecked("Accept-Ranges", "bytes")
            let asked = validators.allowsRange(request.fields) ? request.fields["range"] : nil
            switch ByteRanges(request.method == .get ? asked : nil, of: size) {
            case .whole: break
            case .part(let range):
                fields.appendChecked("Content-Range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)")
                parts = [range]
                status = .partialContent
            case .parts(let ranges):
                parts = ranges
                status = .partialContent
            case .unsatisfiable:
                fields.appendChecked("Content-Range", "bytes */\(size)")
                return .page(.rangeNotSatisfiable, "the file has \(size) bytes", fields: fields)
            }
        }
        let type = fields["content-type"] ?? MediaType.of(name)
        if !fields.contains("content-type") { fields.appendChecked("Content-Type", type) }
        fields.appendChecked("X-Content-Type-Options", "nosniff")
        if parts.count > 1 { return Self.response(fields, with: file, ByteRangesBody(parts, of: size, contentType: type)) }
        guard size <= Self.smallFileBytes else { return Response(status, fields: fields, .segments([.file(file, parts[0])])) }
        let bytes = try FileSystem.contents(file.descriptor.rawValue, maxBytes: size)
        // The file may have shrunk since it was measured.
        let content = status == .partialContent ? Array(bytes.dropFirst(parts[0].lowerBound).prefix(parts[0].count)) : bytes
        return Response(status, fields: fields, .bytes(content))
    }

    /// A response with several parts of a file (RFC 9110 §14.6).
    private static func response(_ fields: HTTPFields, with file: SharedFile, _ body: ByteRangesBody) -> Response {
        var fields = fields
        fields.remove("content-type")
        fields.appendChecked("Content-Type", body.contentType)
        var segments: [Response.Segment] = []
        for (index, part) in body.parts.enumerated() { segments += [.bytes(body.head(of: index)), .file(file, part)] }
        return Response(.partialContent, fields: fields, .segments(segments + [.bytes(body.end)]))
    }
}

/// How the files of a mount are served.
struct FileOptions {
    var dotFiles = Server.DotFiles.refused
    /// The value of `Cache-Control`.
    var cacheControl: String?
    var isPrecompressed = false
}

/// Percent-encoding of paths in `Location`.
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
