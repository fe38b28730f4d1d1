import FuzzTargets
import Glibc

/// The files of Tests/Corpus.
enum Corpus {
    private struct CannotRead: Error { let path: String }

    private static let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/Corpus/"

    static func names(of target: FuzzTarget) throws -> [String] {
        guard let stream = opendir(root + target.rawValue) else { throw CannotRead(path: root + target.rawValue) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted()
    }

    static func contents(of target: FuzzTarget, _ name: String) throws -> [UInt8] {
        let path = root + target.rawValue + "/" + name
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
