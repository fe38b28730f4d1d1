import Glibc
import Testing

/// A directory of its own for one test, removed at the end with all that was made in it.
final class TemporaryDirectory {
    let path: String
    /// What was made in it, directories before their content.
    private var made: [String] = []

    init() throws {
        var template = Array("/tmp/apus-test-XXXXXX\0".utf8.map { CChar(bitPattern: $0) })
        try #require(mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        for name in made.reversed() { remove("\(path)/\(name)") }
        rmdir(path)
    }

    func directory(_ name: String) throws {
        try #require(mkdir("\(path)/\(name)", 0o755) == 0)
        made.append(name)
    }

    func file(_ name: String, _ content: [UInt8]) throws {
        let file = open("\(path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        try #require(file >= 0)
        made.append(name)
        defer { close(file) }
        try #require(write(file, content, content.count) == content.count)
    }

    func file(_ name: String, _ content: String) throws { try file(name, Array(content.utf8)) }

    func link(_ name: String, to target: String) throws {
        try #require(symlink(target, "\(path)/\(name)") == 0)
        made.append(name)
    }

    /// Sets when a file was changed last, in seconds since 1970.
    func touch(_ name: String, at seconds: Int) throws {
        let times = [timespec(tv_sec: seconds, tv_nsec: 0), timespec(tv_sec: seconds, tv_nsec: 0)]
        try #require(utimensat(AT_FDCWD, "\(path)/\(name)", times, 0) == 0)
    }
}
