import FuzzTargets
import Testing

/// Everything that fuzzing ever found worth keeping, through the same checks, without libFuzzer.
@Suite("The corpus", .serialized)
struct CorpusTests {
    @Test("every input of the corpus keeps what its target checks", arguments: FuzzTarget.allCases)
    func replay(target: FuzzTarget) throws {
        let names = try Corpus.names(of: target)
        #expect(names.count >= 10, "seeds of \(target)")
        // A target traps when something does not hold; the runtime's message is the last line of the log.
        for name in names { target.run(try Corpus.contents(of: target, name)) }
    }

    @Test("every target takes an empty input and each single byte", arguments: FuzzTarget.allCases)
    func short(target: FuzzTarget) {
        target.run([])
        for byte in UInt8.min...UInt8.max { target.run([byte]) }
    }
}
