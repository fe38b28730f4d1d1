import ApusPlatform
import Testing
import TestSupport

@testable import Apus

@Suite("The workers' way to the log")
struct LogFileTests {
    @Test("a worker that shuts it down does so for those of now: it is said once, the master's loop rests, and who starts later is heard")
    func shut() throws {
        let place = try TemporaryDirectory()
        defer { FileSystem.remove(place.path + "/log") }
        let log = try LogFile(place.path + "/log")
        let loop = try EventLoop()
        try log.attach(to: loop)
        let shared = log.workerDescriptor
        for line in ["before\n", "", "behind an empty one\n"] { _ = try Socket.send(shared, Array(line.utf8)) }
        // A line without a byte is not the end.
        try loop.turn(timeout: .seconds(10))
        try Socket.shutdownWrite(shared)
        // A loop that finds the end again and again would turn thousands of times.
        let end = MonotonicTime.now() + .milliseconds(200)
        var turns = 0
        while MonotonicTime.now() < end {
            try loop.turn(timeout: .milliseconds(200))
            turns += 1
        }
        #expect(turns < 10)
        _ = try Socket.send(log.workerDescriptor, Array("after\n".utf8))
        try loop.turn(timeout: .seconds(10))
        let texts = String(decoding: try FileSystem.contents(of: log.path, maxBytes: 10_000) ?? [], as: UTF8.self).split(separator: "\n")
        #expect(
            texts.count == 4 && texts[0] == "before pid=\(Process.id)" && texts[1] == "behind an empty one pid=\(Process.id)"
                && texts[3] == "after pid=\(Process.id)")
        let note = "error apus: a worker has shut down the workers' log channel; new workers get a new one"
        #expect(texts.count > 2 && texts[2].hasSuffix(note))
    }
}
