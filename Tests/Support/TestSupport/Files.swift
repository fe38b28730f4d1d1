import Glibc

/// Small file helpers, without Foundation.
public enum Files {
    /// A file's content; nil if it cannot be read.
    public static func bytes(_ path: String) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = read(file, &buffer, buffer.count)
            if count < 0 { return nil }
            if count == 0 { return result }
            result += buffer[..<count]
        }
    }

    public static func text(_ path: String) -> String? { bytes(path).map { String(decoding: $0, as: UTF8.self) } }

    public static func write(_ bytes: some Sequence<UInt8>, to path: String) throws {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw TestFailure.call("open \(path)") }
        defer { close(file) }
        let bytes = Array(bytes)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress?.advanced(by: done), bytes.count - done) }
            guard count > 0 else { throw TestFailure.call("write \(path)") }
            done += count
        }
    }

    public static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// The names in a directory, without `.` and `..`, in no order.
    public static func names(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// Where a symbolic link points.
    public static func link(_ path: String) -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = buffer.withUnsafeMutableBytes { bytes in
            bytes.withMemoryRebound(to: CChar.self) { link in link.baseAddress.map { readlink(path, $0, link.count) } ?? -1 }
        }
        return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
    }

    /// Every regular file below a directory, as paths that begin with it. Links are not followed.
    public static func below(_ directory: String) -> [String] {
        names(in: directory).sorted().flatMap { name -> [String] in
            let path = directory + "/" + name
            var information = stat()
            guard lstat(path, &information) == 0 else { return [] }
            switch information.st_mode & S_IFMT {
            case S_IFDIR: return below(path)
            case S_IFREG: return [path]
            default: return []
            }
        }
    }
}

/// A directory below /tmp that goes with this object.
public final class TemporaryDirectory: Sendable {
    public let path: String

    public init() throws {
        var template = Array("/tmp/apus-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw TestFailure.call("mkdtemp") }
        path = template.withUnsafeBufferPointer { buffer in buffer.baseAddress.map { String(cString: $0) } ?? "" }
        // Workers of a server that root has started are somebody else.
        chmod(path, 0o755)
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        for name in Files.names(in: path) {
            let inner = path + "/" + name
            if unlink(inner) != 0, errno == EISDIR || errno == EPERM { remove(inner) }
        }
        rmdir(path)
    }
}

/// Where this package and what the tests use lie.
public enum Places {
    /// The package's root.
    public static let package: String = {
        let parts = #filePath.split(separator: "/").dropLast(4)
        return "/" + parts.joined(separator: "/")
    }()

    /// The `apus` to test: APUS_COMMAND, or the one built beside these tests.
    public static var command: String {
        if let path = getenv("APUS_COMMAND") { return String(cString: path) }
        return besideTests("apus")
    }

    /// A program built beside these tests.
    public static func besideTests(_ name: String) -> String {
        let runner = Files.link("/proc/self/exe") ?? ""
        return runner.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") + "/" + name
    }

    /// The Python that has the peers' packages; `deploy/install tests` makes it.
    public static let python = package + "/.build-tests/venv/bin/python"

    public static func peer(_ name: String) -> String { package + "/Tests/Support/Peers/" + name }
}
