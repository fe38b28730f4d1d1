import CLinux
import Glibc

/// The properties of a file that serving it needs.
package struct FileInformation: Equatable, Sendable {
    package enum Kind: Sendable { case regular, directory, symbolicLink, other }
    package let kind: Kind
    /// In bytes.
    package let size: Int
    /// Last modification of the content, seconds and nanoseconds since 1970.
    package let modified: Int
    package let modifiedNanoseconds: Int
    package let inode: UInt64
    /// Last status change (ctime), seconds and nanoseconds since 1970; set by the kernel only.
    package let changed: Int
    package let changedNanoseconds: Int
}

/// System calls on files.
package enum FileSystem {
    /// Opens a directory, the root for `openBeneath`.
    package static func openDirectory(_ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("open") { unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
    }

    /// Opens a path without read access (`O_PATH`).
    package static func openName(_ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("open") { unsafe apus_open_name(path) })
    }

    /// Opens the file at the relative `path` for reading; `..`, absolute and magic links cannot
    /// leave `root` (`openat2(2)` with `RESOLVE_BENEATH`).
    ///
    /// - Throws: `SystemError`: `ENOENT`, `EXDEV` (the path leaves the root), `EACCES`, `ELOOP`.
    package static func openBeneath(_ root: Int32, _ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("openat2") { unsafe apus_open_beneath(root, path) })
    }

    /// As `openBeneath(_:_:)`, but also follows absolute symbolic links to targets below
    /// `location`.
    ///
    /// Links are read and replaced in the path one by one. The file itself is opened by
    /// `openBeneath`, which never leaves `root`, whatever a link pointed to when it was read.
    ///
    /// - Parameter location: the path of `root`, as returned by `realPath`.
    package static func openBeneath(_ root: Int32, at location: String, _ path: String) throws(SystemError) -> OwnedDescriptor {
        var path = path
        for _ in 0..<maxLinks {
            do throws(SystemError) {
                return try openBeneath(root, path)
            } catch {
                // A concurrent rename made a `..` ambiguous.
                if error.code == EAGAIN { continue }
                guard error.code == EXDEV, let target = try replacingFirstLink(root, at: location, path) else { throw error }
                path = target
            }
        }
        throw SystemError(code: ELOOP, call: "openat2")
    }

    /// Most symbolic links read per path; the kernel follows 40.
    private static let maxLinks = 16
    /// Most bytes of a path (`PATH_MAX`).
    private static let maxPathBytes = 4096

    /// The path with its first symbolic link replaced by the target; nil if there is none, or its
    /// target is not below `location`.
    private static func replacingFirstLink(_ root: Int32, at location: String, _ path: String) throws(SystemError) -> String? {
        guard path.utf8.count < maxPathBytes else { throw SystemError(code: ENAMETOOLONG, call: "openat2") }
        let components = path.utf8.split(separator: UInt8(ascii: "/")).map { String(Substring($0)) }
        for index in components.indices {
            let name = components[...index].joined(separator: "/")
            let link = OwnedDescriptor(rawValue: try blockingSyscall("openat2") { unsafe apus_open_link_beneath(root, name) })
            guard try information(link.rawValue).kind == .symbolicLink else { continue }
            guard let target = relative(try target(of: link.rawValue), to: location) else { return nil }
            let parts = (target.isAbsolute ? [] : Array(components[..<index])) + [target.path] + components[(index + 1)...]
            let joined = parts.filter { !$0.isEmpty }.joined(separator: "/")
            return joined.isEmpty ? "." : path.utf8.last == UInt8(ascii: "/") ? joined + "/" : joined
        }
        return nil
    }

    /// A link's target; if absolute, relative to `location`. Nil if it is not below `location`.
    private static func relative(_ target: String, to location: String) -> (path: String, isAbsolute: Bool)? {
        guard target.utf8.first == UInt8(ascii: "/") else { return (target, false) }
        let root = location.utf8.last == UInt8(ascii: "/") ? location.utf8.dropLast() : location.utf8[...]
        guard target.utf8.starts(with: root) else { return nil }
        let rest = target.utf8.dropFirst(root.count)
        guard rest.first == nil || rest.first == UInt8(ascii: "/") else { return nil }
        return (String(decoding: rest.drop { $0 == UInt8(ascii: "/") }, as: UTF8.self), true)
    }

    /// The target of the symbolic link that the descriptor refers to.
    private static func target(of link: Int32) throws(SystemError) -> String {
        var bytes = [CChar](repeating: 0, count: maxPathBytes)
        let count = try blockingSyscall("readlinkat") { unsafe readlinkat(link, "", &bytes, bytes.count) }
        return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The absolute path without symbolic links (`realpath(3)`).
    package static func realPath(_ path: String) throws(SystemError) -> String {
        guard let resolved = unsafe realpath(path, nil) else { throw SystemError(code: errno, call: "realpath") }
        // SAFETY: realpath returns a NUL-terminated string that the caller frees.
        defer { unsafe free(resolved) }
        return unsafe String(cString: resolved)
    }

    package static func information(_ descriptor: Int32) throws(SystemError) -> FileInformation {
        var status = stat()
        try blockingSyscall("fstat") { unsafe fstat(descriptor, &status) }
        let kind: FileInformation.Kind =
            switch status.st_mode & S_IFMT {
            case S_IFREG: .regular
            case S_IFDIR: .directory
            case S_IFLNK: .symbolicLink
            default: .other
            }
        return FileInformation(
            kind: kind, size: Int(status.st_size), modified: status.st_mtim.tv_sec,
            modifiedNanoseconds: status.st_mtim.tv_nsec, inode: UInt64(status.st_ino),
            changed: status.st_ctim.tv_sec, changedNanoseconds: status.st_ctim.tv_nsec)
    }

    /// Reads at `offset`; 0 bytes at the end of the file.
    package static func read(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(SystemError) -> Int {
        try blockingSyscall("pread") { unsafe pread(descriptor, buffer.baseAddress, buffer.count, offset) }
    }

    /// Calls `read(2)` once for at most `maxBytes`; an empty array at the end. Blocks if the
    /// descriptor is blocking and has no data.
    package static func readSome(_ descriptor: Int32, maxBytes: Int) throws(SystemError) -> IOResult<[UInt8]> {
        var result = IOResult<Int>.wouldBlock
        var failure: SystemError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: maxBytes) { buffer, used in
            do throws(SystemError) {
                result = try syscall("read") { unsafe Glibc.read(descriptor, buffer.baseAddress, maxBytes) }
                if case .done(let count) = result { used = count }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return switch result {
        case .done: .done(bytes)
        case .wouldBlock: .wouldBlock
        }
    }

    /// The file's first `maxBytes` bytes, fewer if it is shorter.
    package static func contents(_ file: Int32, maxBytes: Int) throws(SystemError) -> [UInt8] {
        var failure: SystemError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: maxBytes) { buffer, used in
            do throws(SystemError) {
                while used < maxBytes {
                    let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[used..<maxBytes])
                    let got = try unsafe read(file, into: rest, at: used)
                    if got == 0 { break }
                    used += got
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// The first `maxBytes` bytes of the file at `path`; nil unless it is a regular file: reading a
    /// named pipe could block forever.
    package static func contents(of path: String, maxBytes: Int) throws(SystemError) -> [UInt8]? {
        let file = OwnedDescriptor(
            rawValue: try blockingSyscall("open") { unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) })
        guard try information(file.rawValue).kind == .regular else { return nil }
        return try contents(file.rawValue, maxBytes: maxBytes)
    }

    /// Sends `count` bytes of a file from `offset` to a socket (`sendfile(2)`); 0 bytes if the file
    /// has ended.
    package static func send(_ file: Int32, to socket: Int32, from offset: Int, count: Int) throws(SystemError) -> IOResult<Int> {
        var position = offset
        return try syscall("sendfile") { unsafe sendfile(socket, file, &position, count) }
    }

    /// Replaces the file at `path` with `text` atomically: readers see the old or the new content.
    package static func replace(_ path: String, with text: String, mode: UInt32 = 0o644) throws(SystemError) {
        let (file, temporary) = try makeBeside(path, mode: mode).release()
        let owner = OwnedDescriptor(rawValue: file)
        do {
            try writeAll(owner.rawValue, text)
            try rename(temporary, to: path)
        } catch {
            remove(temporary)
            throw error
        }
    }

    /// A new file that will replace another, created exclusively, whoever else may write to its
    /// directory.
    struct NewFile: ~Copyable {
        let file: OwnedDescriptor
        let path: String
        consuming func release() -> (Int32, String) { (file.release(), path) }
    }

    /// Creates a file with an unguessable name in the directory of `path`.
    static func makeBeside(_ path: String, mode: UInt32) throws(SystemError) -> NewFile {
        var attempts = 8
        while true {
            let suffix = SystemRandom.bytes(6).map { byte in [byte >> 4, byte & 15].map { String($0, radix: 16) }.joined() }.joined()
            let temporary = "\(path).\(suffix)"
            do {
                let number = try blockingSyscall("open") {
                    unsafe open(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)
                }
                return NewFile(file: OwnedDescriptor(rawValue: number), path: temporary)
            } catch  where error.code == EEXIST && attempts > 1 {
                attempts -= 1
            }
        }
    }

    /// Writes all of `text` to a blocking descriptor, such as standard error.
    package static func writeAll(_ descriptor: Int32, _ text: String) throws(SystemError) { try writeAll(descriptor, Array(text.utf8)) }

    package static func writeAll(_ descriptor: Int32, _ bytes: [UInt8]) throws(SystemError) {
        var bytes = bytes[...]
        while !bytes.isEmpty {
            let count = try blockingSyscall("write") {
                unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            }
            bytes = bytes.dropFirst(count)
        }
    }

    package static func rename(_ path: String, to place: String) throws(SystemError) {
        try blockingSyscall("rename") { unsafe Glibc.rename(path, place) }
    }

    /// Opens a file for appending, and creates it if needed.
    package static func openForAppending(_ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(
            rawValue: try blockingSyscall("open") {
                unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0o640)
            })
    }

    /// Calls `write(2)` once.
    ///
    /// - Returns: the number of bytes written.
    package static func write(_ descriptor: Int32, _ bytes: [UInt8]) throws(SystemError) -> IOResult<Int> {
        try syscall("write") { unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) } }
    }

    /// - Throws: the error with which `replace` would fail at `path`, as far as it can be foreseen.
    package static func checkReplaceable(_ path: String) throws(SystemError) {
        var status = stat()
        if unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { throw SystemError(code: EISDIR, call: "rename") }
        let (file, temporary) = try makeBeside(path, mode: 0o644).release()
        OwnedDescriptor.close(file)
        remove(temporary)
    }

    /// - Throws: the error that prevents creating files beside `path`; none is created.
    package static func checkDirectory(of path: String) throws(SystemError) {
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        try blockingSyscall("access") { unsafe access(directory, W_OK | X_OK) }
        if isDirectory(path) { throw SystemError(code: EISDIR, call: "open") }
    }

    /// Whether two paths name the same entry of the same directory.
    package static func isSamePlace(_ one: String, _ other: String) -> Bool {
        func parts(_ path: String) -> (directory: String, name: Substring) {
            guard let slash = path.lastIndex(of: "/") else { return (".", path[...]) }
            return (String(path[...slash]), path[path.index(after: slash)...])
        }
        let (first, second) = (parts(one), parts(other))
        guard first.name == second.name else { return false }
        var (left, right) = (stat(), stat())
        guard unsafe stat(first.directory, &left) == 0, unsafe stat(second.directory, &right) == 0 else { return one == other }
        return left.st_dev == right.st_dev && left.st_ino == right.st_ino
    }

    /// - Throws: the error that prevents appending to, or creating, the file at `path`.
    package static func checkAppendable(_ path: String) throws(SystemError) {
        if isDirectory(path) { throw SystemError(code: EISDIR, call: "open") }
        do throws(SystemError) {
            try blockingSyscall("access") { unsafe access(path, W_OK) }
        } catch {
            if error.code != ENOENT { throw error }
            try checkDirectory(of: path)
        }
    }

    private static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// The number of names that `names(in:)` returns.
    package static func entryCount(of directory: String) -> Int {
        names(in: directory).count
    }

    /// The names in a directory, without those that start with a dot; empty if it cannot be read.
    package static func names(in directory: String) -> [String] {
        guard let stream = unsafe opendir(directory) else { return [] }
        defer { _ = unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            // SAFETY: the entry is valid until the next call of readdir; its name is
            // NUL-terminated.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { field in
                unsafe field.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: entry.pointee.d_name)) { characters in
                    unsafe String(cString: characters)
                }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }

    /// Whether the mode of a directory allows a user and group to search it.
    package static func maySearch(_ directory: Int32, user: UInt32, group: UInt32) throws(SystemError) -> Bool {
        var status = stat()
        try blockingSyscall("fstat") { unsafe fstat(directory, &status) }
        if user == 0 { return true }
        let bit = status.st_uid == user ? S_IXUSR : status.st_gid == group ? S_IXGRP : S_IXOTH
        return status.st_mode & bit != 0
    }

    /// Creates a file below `root`: to test that a worker cannot.
    package static func createBeneath(_ root: Int32, _ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("openat2") { unsafe apus_create_beneath(root, path) })
    }

    /// Creates a directory in /tmp, by default readable by all users, and returns its path.
    package static func makeTemporaryDirectory(mode: UInt32 = 0o755) throws(SystemError) -> String {
        var template = Array("/tmp/apus-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw SystemError(code: errno, call: "mkdtemp") }
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try blockingSyscall("chmod") { unsafe chmod(path, mode) }
        return path
    }

    /// Sets the owner, the group and the mode of the file at `path`, without following a link; nil
    /// leaves them.
    package static func setAccess(of path: String, mode: UInt32?, user: UInt32?, group: UInt32?) throws(SystemError) {
        if user != nil || group != nil {
            // `chown` leaves IDs of -1 unchanged.
            try blockingSyscall("chown") { unsafe lchown(path, user ?? .max, group ?? .max) }
        }
        if let mode { try blockingSyscall("chmod") { unsafe fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW) } }
    }

    /// Removes an empty directory; errors are ignored.
    package static func removeDirectory(_ path: String) { _ = unsafe rmdir(path) }

    /// Removes a file; errors are ignored.
    package static func remove(_ path: String) { _ = unsafe unlink(path) }

    /// Whether `path` is a socket.
    package static func isSocket(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }
}

/// A file locked while this object lives and the process runs (`fcntl F_SETLK`); forks do not
/// inherit the lock.
package final class FileLock {
    private let file: OwnedDescriptor

    /// Replaces the file at `path` with a locked one that contains `text`.
    package init(replacing path: String, with text: String) throws(SystemError) {
        let (number, temporary) = try FileSystem.makeBeside(path, mode: 0o644).release()
        file = OwnedDescriptor(rawValue: number)
        do {
            try blockingSyscall("fcntl") { apus_lock_file(number) }
            try FileSystem.writeAll(number, text)
            try FileSystem.rename(temporary, to: path)
        } catch {
            FileSystem.remove(temporary)
            throw error
        }
    }

    /// The process that holds the lock of the file at `path`; nil if none does, or the file does
    /// not exist.
    package static func holder(of path: String) -> Int32? {
        guard let number = try? blockingSyscall("open", { unsafe open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK) }) else { return nil }
        let file = OwnedDescriptor(rawValue: number)
        let holder = apus_lock_holder(file.rawValue)
        return holder > 0 ? holder : nil
    }
}
