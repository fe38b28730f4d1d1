import Glibc
import TestSupport
import Testing

@testable import ApusTransport

@Suite("What TLS is made from")
struct TLSFilesTests {
    @Test("each file is read once; another process has the same, and reads nothing")
    func handedOver() throws {
        let place = try TemporaryDirectory()
        let (one, two) = (place.path + "/one", place.path + "/größer")
        try Files.write(Array("first".utf8), to: one)
        try Files.write([UInt8](repeating: 7, count: 70_000), to: two)
        let files = TLSFiles()
        #expect(try files.contents(of: one) == Array("first".utf8))
        #expect(try files.contents(of: two).count == 70_000)
        #expect(try files.contents(named: "key") { [1, 2, 3] } == [1, 2, 3])
        try Files.write(Array("second".utf8), to: one)
        #expect(try files.contents(of: one) == Array("first".utf8))

        let other = try #require(TLSFiles(encoded: files.encoded))
        #expect(try other.contents(of: one) == Array("first".utf8))
        #expect(try other.contents(of: two) == files.contents(of: two))
        #expect(try other.contents(named: "key") { throw TestFailure("asked again") } == [1, 2, 3])
        #expect(throws: TLSSetupError("\"/etc/hostname\" was not handed over")) { try other.contents(of: "/etc/hostname") }
    }

    @Test("a file that differs, or is gone, has changed; one that was only touched has not")
    func changes() throws {
        let place = try TemporaryDirectory()
        let file = place.path + "/file"
        try Files.write([1], to: file)
        let files = TLSFiles()
        _ = try files.contents(of: file)
        _ = try files.contents(named: "key") { [1] }
        #expect(!files.haveChanged)
        try Files.write([1], to: file)
        #expect(!files.haveChanged)
        try Files.write([2], to: file)
        #expect(files.haveChanged)
        try #require(unlink(file) == 0)
        #expect(files.haveChanged)
    }

    @Test("a record that is cut anywhere is none")
    func cut() throws {
        let files = TLSFiles()
        _ = try files.contents(named: "key") { [1, 2, 3] }
        let record = files.encoded
        for count in 1..<record.count { #expect(TLSFiles(encoded: Array(record[..<count])) == nil) }
        #expect(TLSFiles(encoded: [9] + record.dropFirst()) == nil)
    }
}
