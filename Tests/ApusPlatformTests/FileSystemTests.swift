import ApusPlatform
import Glibc
import Testing

@Suite("Files that are put in another's place")
struct FileSystemTests {
    /// Puts a file at a path, in one of the ways there are.
    static let ways: [(name: String, put: @Sendable (String) throws -> Void)] = [
        ("replace", { try FileSystem.replace($0, with: "new") }),
        ("check", { try FileSystem.checkReplaceable($0) }),
        ("lock", { _ = try FileLock(replacing: $0, with: "new") }),
    ]

    @Test("somebody else's file beside it is neither written, followed nor removed", arguments: 0..<3)
    func neighbours(way: Int) throws {
        let directory = try FileSystem.makeTemporaryDirectory()
        let (path, link, victim) = (directory + "/file", directory + "/file.new", directory + "/victim")
        defer {
            for name in [path, link, victim] { FileSystem.remove(name) }
            FileSystem.removeDirectory(directory)
        }
        try FileSystem.replace(victim, with: "precious")
        #expect(symlink(victim, link) == 0)
        try Self.ways[way].put(path)
        #expect(try FileSystem.contents(of: victim, maxBytes: 100) == Array("precious".utf8))
        var status = stat()
        #expect(lstat(link, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK, "\(Self.ways[way].name)")
        // Nothing of one's own is left over.
        #expect(names(in: directory) == (way == 1 ? ["file.new", "victim"] : ["file", "file.new", "victim"]))
    }

    @Test("a directory cannot be replaced, and nothing is left beside it", arguments: 0..<3)
    func directory(way: Int) throws {
        let directory = try FileSystem.makeTemporaryDirectory()
        let path = directory + "/file"
        #expect(mkdir(path, 0o755) == 0)
        let error = #expect(throws: SystemError.self) { try Self.ways[way].put(path) }
        #expect(error?.code == EISDIR)
        #expect(names(in: directory) == ["file"])
        FileSystem.removeDirectory(path)
        FileSystem.removeDirectory(directory)
    }

    @Test("the names in a directory, without those that begin with a dot")
    func listing() throws {
        let directory = try FileSystem.makeTemporaryDirectory()
        let files = ["a", "b.c", ".d", String(repeating: "e", count: 255)]
        defer {
            for name in files { FileSystem.remove(directory + "/" + name) }
            FileSystem.removeDirectory(directory)
        }
        for name in files { _ = try FileSystem.openForAppending(directory + "/" + name) }
        #expect(FileSystem.names(in: directory).sorted() == ["a", "b.c", files[3]])
        #expect(FileSystem.entryCount(of: directory) == 3)
        #expect(FileSystem.names(in: "/nowhere") == [])
    }

    private func names(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }
}
