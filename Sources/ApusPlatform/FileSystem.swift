import CLinux
import Glibc

/// What a file is, as far as serving it needs to know.
package struct FileInformation: Equatable, Sendable {
    package enum Kind: Sendable { case regular, directory, symbolicLink, other }
    package let kind: Kind
    /// Bytes.
    package let size: Int
    /// Last change of the content, seconds and nanoseconds since 1970.
    package let modified: Int
    package let modifiedNanoseconds: Int
    package let inode: UInt64
    /// Last change of the content or of what `stat(2)` says, seconds and nanoseconds since 1970; the kernel's, nobody can set it.
    package let changed: Int
    package let changedNanoseconds: Int
}

/// System calls on files.
package enum FileSystem {
    /// Opens a directory, the root that `openBeneath` never leaves.
    package static func openDirectory(_ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("open") { unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
    }

    /// Names what stands at a path, without the right to read it (`O_PATH`).
    package static func openName(_ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("open") { unsafe apus_open_name(path) })
    }

    /// Opens the file at the relative `path` for reading; `..`, absolute and magic links cannot leave `root`
    /// (`openat2(2)` with `RESOLVE_BENEATH`). Throws `ENOENT`, `EXDEV` (it would leave), `EACCES`, `ELOOP`.
    package static func openBeneath(_ root: Int32, _ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("openat2") { unsafe apus_open_beneath(root, path) })
    }

    /// Opens the file as `openBeneath` does, and follows absolute symbolic links, too, whose targets are beneath `location`.
    ///
    /// Links are read and replaced in the path one after the other. Whatever they were when they were read, the file is opened by
    /// `openBeneath`, which never leaves `root`.
    ///
    /// - Parameter location: The path of `root`, as `realPath` gives it.
    package static func openBeneath(_ root: Int32, at location: String, _ path: String) throws(SystemError) -> OwnedDescriptor {
        var path = path
        for _ in 0..<maxLinks {
            do throws(SystemError) {
                return try openBeneath(root, path)
            } catch {
                // A rename elsewhere kept the kernel from being sure of a `..`.
                if error.code == EAGAIN { continue }
                guard error.code == EXDEV, let target = try replacingFirstLink(root, at: location, path) else { throw error }
                path = target
            }
        }
        throw SystemError(code: ELOOP, call: "openat2")
    }

    /// Symbolic links of one path that are read; the kernel follows 40.
    private static let maxLinks = 16
    /// Bytes of a path (PATH_MAX).
    private static let maxPathBytes = 4096

    /// The path with its first symbolic link replaced by the link's target; nil if there is none, or its target is not beneath `location`.
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

    /// A link's target, where it is absolute as a path beneath `location`; nil if it is not beneath.
    private static func relative(_ target: String, to location: String) -> (path: String, isAbsolute: Bool)? {
        guard target.utf8.first == UInt8(ascii: "/") else { return (target, false) }
        let root = location.utf8.last == UInt8(ascii: "/") ? location.utf8.dropLast() : location.utf8[...]
        guard target.utf8.starts(with: root) else { return nil }
        let rest = target.utf8.dropFirst(root.count)
        guard rest.first == nil || rest.first == UInt8(ascii: "/") else { return nil }
        return (String(decoding: rest.drop { $0 == UInt8(ascii: "/") }, as: UTF8.self), true)
    }

    /// The target of the symbolic link that a descriptor names.
    private static func target(of link: Int32) throws(SystemError) -> String {
        var bytes = [CChar](repeating: 0, count: maxPathBytes)
        let count = try blockingSyscall("readlinkat") { unsafe readlinkat(link, "", &bytes, bytes.count) }
        return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The absolute path without symbolic links (`realpath(3)`).
    package static func realPath(_ path: String) throws(SystemError) -> String {
        guard let resolved = unsafe realpath(path, nil) else { throw SystemError(code: errno, call: "realpath") }
        // SAFETY: realpath gives a string that ends with NUL and belongs to the caller.
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

    /// Reads at `offset`; 0 bytes mean the end.
    package static func read(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(SystemError) -> Int {
        try blockingSyscall("pread") { unsafe pread(descriptor, buffer.baseAddress, buffer.count, offset) }
    }

    /// `read(2)` once, at most `maxBytes`; nothing at the end. Blocks if the descriptor does and nothing is there.
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

    /// The first `maxBytes` bytes of the file at `path`; nil if it is no regular file: the other end of a named pipe may never come.
    package static func contents(of path: String, maxBytes: Int) throws(SystemError) -> [UInt8]? {
        let file = OwnedDescriptor(
            rawValue: try blockingSyscall("open") { unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) })
        guard try information(file.rawValue).kind == .regular else { return nil }
        return try contents(file.rawValue, maxBytes: maxBytes)
    }

    /// Sends `count` bytes of a file from `offset` to a socket inside the kernel; 0 bytes mean that the file ended.
    package static func send(_ file: Int32, to socket: Int32, from offset: Int, count: Int) throws(SystemError) -> IOResult<Int> {
        var position = offset
        return try syscall("sendfile") { unsafe sendfile(socket, file, &position, count) }
    }

    /// Replaces the file at `path` by `text`: readers see the old or the new content, never a part.
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

    /// A file that is about to take another's place: nobody else's, whoever may write its directory.
    struct NewFile: ~Copyable {
        let file: OwnedDescriptor
        let path: String
        consuming func release() -> (Int32, String) { (file.release(), path) }
    }

    /// Makes a new file of an unguessable name in the directory of `path`.
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

    /// Writes all of `text` to a descriptor that blocks, such as standard error.
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

    /// Opens a file to append to it, and makes it if there is none.
    package static func openForAppending(_ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(
            rawValue: try blockingSyscall("open") {
                unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0o640)
            })
    }

    /// One `write(2)`; the number of bytes taken.
    package static func write(_ descriptor: Int32, _ bytes: [UInt8]) throws(SystemError) -> IOResult<Int> {
        try syscall("write") { unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) } }
    }

    /// Throws what would keep `replace` from replacing the file at `path`.
    package static func checkReplaceable(_ path: String) throws(SystemError) {
        var status = stat()
        if unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { throw SystemError(code: EISDIR, call: "rename") }
        let (file, temporary) = try makeBeside(path, mode: 0o644).release()
        OwnedDescriptor.close(file)
        remove(temporary)
    }

    /// Throws what keeps this process from making files beside the one at `path`, without making any.
    package static func checkDirectory(of path: String) throws(SystemError) {
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        try blockingSyscall("access") { unsafe access(directory, W_OK | X_OK) }
        if isDirectory(path) { throw SystemError(code: EISDIR, call: "open") }
    }

    /// Throws what keeps this process from appending to the file at `path`, or from making it.
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

    /// How many names `names(in:)` returns.
    package static func entryCount(of directory: String) -> Int {
        names(in: directory).count
    }

    /// The names of what is in a directory, without those that begin with a dot; none if it cannot be read.
    package static func names(in directory: String) -> [String] {
        guard let stream = unsafe opendir(directory) else { return [] }
        defer { _ = unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            // SAFETY: The entry stays until the next call of readdir; its name ends with NUL.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { field in
                unsafe field.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: entry.pointee.d_name)) { characters in
                    unsafe String(cString: characters)
                }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }

    /// Whether a user and group may look things up in a directory, as its mode says.
    package static func maySearch(_ directory: Int32, user: UInt32, group: UInt32) throws(SystemError) -> Bool {
        var status = stat()
        try blockingSyscall("fstat") { unsafe fstat(directory, &status) }
        if user == 0 { return true }
        let bit = status.st_uid == user ? S_IXUSR : status.st_gid == group ? S_IXGRP : S_IXOTH
        return status.st_mode & bit != 0
    }

    /// Makes a new file beneath `root`: what a worker must not be able to do.
    package static func createBeneath(_ root: Int32, _ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(rawValue: try blockingSyscall("openat2") { unsafe apus_create_beneath(root, path) })
    }

    /// Makes a directory below /tmp, by default one that everybody may read, and returns its path.
    package static func makeTemporaryDirectory(mode: UInt32 = 0o755) throws(SystemError) -> String {
        var template = Array("/tmp/apus-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw SystemError(code: errno, call: "mkdtemp") }
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try blockingSyscall("chmod") { unsafe chmod(path, mode) }
        return path
    }

    /// Sets the owner, the group and the permissions of what stands at `path` itself, no link followed; nil leaves them.
    package static func setAccess(of path: String, mode: UInt32?, user: UInt32?, group: UInt32?) throws(SystemError) {
        if user != nil || group != nil {
            // The largest number leaves it as it is.
            try blockingSyscall("chown") { unsafe lchown(path, user ?? .max, group ?? .max) }
        }
        if let mode { try blockingSyscall("chmod") { unsafe fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW) } }
    }

    /// Removes an empty directory; no error if there is none.
    package static func removeDirectory(_ path: String) { _ = unsafe rmdir(path) }

    /// Removes a file; no error if there is none.
    package static func remove(_ path: String) { _ = unsafe unlink(path) }

    /// Whether `path` names a socket.
    package static func isSocket(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }
}

/// A file that is locked as long as this object lives and the process runs (`fcntl F_SETLK`): forks do not inherit the lock.
package final class FileLock {
    private let file: OwnedDescriptor

    /// Puts a file with `text`, locked, in the place of what is at `path`.
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

    /// The process that holds the lock of the file at `path`; nil if nobody does, or there is no such file.
    package static func holder(of path: String) -> Int32? {
        guard let number = try? blockingSyscall("open", { unsafe open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK) }) else { return nil }
        let file = OwnedDescriptor(rawValue: number)
        let holder = apus_lock_holder(file.rawValue)
        return holder > 0 ? holder : nil
    }
}
