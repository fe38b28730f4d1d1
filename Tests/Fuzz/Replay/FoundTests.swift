import FuzzTargets
import Testing

/// What fuzzing found, a sentence each: the input is in the corpus under the name `found-…`, and the target checks what was wrong.
@Suite("Found by fuzzing", .serialized)
struct FoundTests {
    @Test("messages that were read already are not delivered after terminate")
    func terminate() throws { try replay(.connection, "found-terminate-in-received") }

    @Test("a peer that hangs up while its request is being answered is let go, without turning the loop for nothing")
    func hangUp() throws { try replay(.connection, "found-hang-up-while-answering") }

    @Test("a file for a peer that has gone does not end the process by SIGPIPE")
    func brokenPipe() throws { try replay(.connection, "found-file-to-a-peer-that-has-gone") }

    @Test("a worker that was drained is released, and its listening sockets with it")
    func drain() throws { try replay(.connection, "found-drain") }

    @Test("a leap second at the end of the year 9999 is no date, as none can be written for it")
    func lastDate() throws { try replay(.fields, "found-date-past-the-year-9999") }

    private func replay(_ target: FuzzTarget, _ name: String) throws { target.run(try Corpus.contents(of: target, name)) }
}
