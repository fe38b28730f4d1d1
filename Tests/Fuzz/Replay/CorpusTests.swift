import FuzzTargets
import Glibc
import Testing

/// Everything that fuzzing ever found worth keeping, through the same checks, without libFuzzer.
@Suite("The corpus", .serialized)
struct CorpusTests {
    @Test("every input of the corpus keeps what its target checks", arguments: FuzzTarget.allCases)
    func replay(target: FuzzTarget) throws {
        let directory = Self.root + "/" + target.rawValue
        let names = try Self.names(in: directory)
        #expect(names.count >= 10, "seeds of \(target)")
        // A target traps when something does not hold: what it was about stands in this variable of the process, for a debugger, and in
        // the last line of the log.
        for name in names { target.run(try Self.contents(of: directory + "/" + name)) }
    }

    @Test("every target takes an empty input and each single byte", arguments: FuzzTarget.allCases)
    func short(target: FuzzTarget) {
        target.run([])
        for byte in UInt8.min...UInt8.max { target.run([byte]) }
    }

    private static let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/Corpus"

    private struct CannotRead: Error { let path: String }

    private static func names(in directory: String) throws -> [String] {
        guard let stream = opendir(directory) else { throw CannotRead(path: directory) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted()
    }

    private static func contents(of path: String) throws -> [UInt8] {
        guard let file = fopen(path, "r") else { throw CannotRead(path: path) }
        defer { fclose(file) }
        var contents: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            guard count > 0 else { return contents }
            contents += buffer[..<count]
        }
    }
}
