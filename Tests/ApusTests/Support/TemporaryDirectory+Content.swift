import Glibc
import TestSupport
import Testing

extension TemporaryDirectory {
    func directory(_ name: String) throws { try #require(mkdir("\(path)/\(name)", 0o755) == 0) }

    func file(_ name: String, _ content: [UInt8]) throws { try Files.write(content, to: "\(path)/\(name)") }

    func file(_ name: String, _ content: String) throws { try file(name, Array(content.utf8)) }

    func link(_ name: String, to target: String) throws { try #require(symlink(target, "\(path)/\(name)") == 0) }

    /// Sets when a file was changed last, in seconds since 1970.
    func touch(_ name: String, at seconds: Int) throws {
        let times = [timespec(tv_sec: seconds, tv_nsec: 0), timespec(tv_sec: seconds, tv_nsec: 0)]
        try #require(utimensat(AT_FDCWD, "\(path)/\(name)", times, 0) == 0)
    }
}
