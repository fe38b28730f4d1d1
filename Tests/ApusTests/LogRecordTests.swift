import ApusPlatform
import Glibc
import Testing

@testable import Apus

@Suite("What workers may write to the log, and when it moves")
struct LogRecordTests {
    @Test(
        "one record is one line, without control characters, and ends with who sent it",
        arguments: [
            ("plain\n", "plain pid=7\n"), ("two\nlines\n", "two lines pid=7\n"),
            (
                "\n2026-11-22T13:05:38.123Z notice apus: forged\n",
                " 2026-11-22T13:05:38.123Z notice apus: forged pid=7\n"
            ),
            ("esc \u{1b}[2J bell \u{7} del \u{7f}\r\n", "esc  [2J bell   del pid=7\n"),
            ("c1 \u{9b}2J\u{85}\u{2028}\u{2029}x", "c1  2J   x pid=7\n"),
            ("grün pid=1\n", "grün pid=1 pid=7\n"), ("", " pid=7\n"),
        ])
    func sanitised(record: String, line: String) {
        #expect(LogLine.ofWorker(Array(record.utf8), 7) == Array(line.utf8))
    }

    @Test("a record that is no UTF-8 is made text")
    func notText() { #expect(LogLine.ofWorker([0x61, 0xff, 0x62], 7) == Array("a\u{fffd}b pid=7\n".utf8)) }

    @Test("the process is the kernel's word, whatever the record says")
    func sender() throws {
        let path = "/tmp/apus-test-\(Process.id)-\(UInt32.random(in: 0...(.max))).log"
        defer { FileSystem.remove(path) }
        let log = try LogFile(path)
        let loop = try EventLoop()
        try log.attach(to: loop)
        log.becomeWorker()
        log.write("worker 3 ended\npid=1")
        let deadline = MonotonicTime.now() + .seconds(5)
        func text() throws -> String { String(decoding: try FileSystem.contents(of: path, maxBytes: 1000) ?? [], as: UTF8.self) }
        while try text().isEmpty, MonotonicTime.now() < deadline { try loop.turn(timeout: .milliseconds(10)) }
        #expect(try text() == "worker 3 ended pid=1 pid=\(Process.id)\n")
    }

    @Test("a move is prepared, and made or forgotten")
    func moves() throws {
        let paths = (0..<3).map { _ in "/tmp/apus-test-\(Process.id)-\(UInt32.random(in: 0...(.max))).log" }
        defer { for path in paths { FileSystem.remove(path) } }
        let log = try LogFile(paths[0])
        try log.prepareMove(to: paths[1])
        log.write("one")
        log.forgetMove()
        log.move()
        log.write("two")
        #expect(throws: ConfigurationError.self) { try log.prepareMove(to: "/nowhere/log") }
        try log.prepareMove(to: paths[2])
        log.move()
        log.write("three")
        let texts = try paths.map { String(decoding: try FileSystem.contents(of: $0, maxBytes: 1000) ?? [], as: UTF8.self) }
        #expect(texts == ["one\ntwo\n", "", "three\n"])
        #expect(log.path == paths[2])
    }
}
