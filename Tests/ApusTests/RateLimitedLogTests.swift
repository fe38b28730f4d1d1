import ApusPlatform
import Testing

@testable import Apus

@Suite("What happens often and is said rarely")
struct RateLimitedLogTests {
    @Test("it is said at once, and again after the interval with how often it has happened since")
    func rarely() {
        var note = RateLimitedLog(every: .seconds(10))
        let start = MonotonicTime.now()
        #expect(note.note(at: start) == 1)
        for tenth in 1..<100 { #expect(note.note(at: start + .milliseconds(100 * tenth)) == nil) }
        #expect(note.note(at: start + .seconds(10)) == 100)
        #expect(note.note(at: start + .seconds(19)) == nil)
        #expect(note.note(at: start + .seconds(20)) == 2)
    }
}
