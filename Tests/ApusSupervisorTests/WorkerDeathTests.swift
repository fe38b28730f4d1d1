import ApusPlatform
import CSeccomp
import Glibc
import Logging
import Testing

@testable import ApusSupervisor

private func resolve(_ call: String) -> Int32 { seccomp_syscall_resolve_name(call) }

@Suite("Deaths of workers")
struct WorkerDeathTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let end: ProcessEnd
        var violation: Int32?
        var wasAborted = false
        var reason: String?
        var lastWords: String?
        let kind: WorkerDeath.Kind
        let text: String
        var testDescription: String { text }
    }

    @Test(
        "a death is told by how the process ended and what it left behind",
        arguments: [
            Case(end: .exited(0), kind: .exit, text: "exit 0"),
            Case(end: .exited(3), reason: "the database is on fire", kind: .exit, text: "exit 3 (the database is on fire)"),
            Case(end: .signaled(SIGSYS), violation: resolve("execve"), kind: .violation, text: "sandbox-violation: execve"),
            Case(end: .signaled(SIGSYS), violation: 99_999, kind: .violation, text: "sandbox-violation: call 99999"),
            Case(end: .signaled(SIGSYS), kind: .violation, text: "sandbox-violation: a call through another gate"),
            Case(end: .signaled(SIGILL), kind: .trap, text: "trap (killed by SIGILL)"),
            Case(
                end: .signaled(SIGILL), lastWords: "Fatal error: Index out of range", kind: .trap,
                text: "trap: Fatal error: Index out of range (killed by SIGILL)"),
            Case(end: .signaled(SIGTRAP), kind: .trap, text: "trap (killed by SIGTRAP)"),
            Case(end: .signaled(SIGFPE), kind: .trap, text: "trap (killed by SIGFPE)"),
            Case(end: .signaled(SIGABRT), kind: .trap, text: "trap (killed by SIGABRT)"),
            Case(end: .signaled(SIGABRT), wasAborted: true, lastWords: "a warning", kind: .aborted, text: "aborted (killed by SIGABRT)"),
            // It was to be aborted, but died otherwise.
            Case(end: .signaled(SIGSEGV), wasAborted: true, kind: .segfault, text: "segfault (killed by SIGSEGV)"),
            Case(end: .signaled(SIGSEGV), violation: 59, kind: .segfault, text: "segfault (killed by SIGSEGV)"),
            Case(end: .signaled(SIGBUS), kind: .segfault, text: "segfault (killed by SIGBUS)"),
            Case(end: .signaled(SIGKILL), kind: .killed, text: "killed by SIGKILL"),
            Case(end: .signaled(SIGTERM), kind: .signal, text: "killed by SIGTERM"),
        ])
    func deaths(one: Case) {
        let death = WorkerDeath(
            one.end, violation: one.violation, wasAborted: one.wasAborted, reason: one.reason, lastWords: one.lastWords)
        #expect(death.kind == one.kind)
        #expect(death.description == one.text)
    }

    @Test("the last that was written counts, but not what follows the runtime's verdict")
    func lastWords() {
        var words = LastWords()
        #expect(words.text == nil)
        words.heard("a warning")
        words.heard("another")
        #expect(words.text == "another")
        words.heard("main.swift:5: Fatal error: boo")
        words.heard("Current stack trace:")
        #expect(words.text == "main.swift:5: Fatal error: boo")
        words.heard("Fatal error: again")
        #expect(words.text == "Fatal error: again")
    }

    @Test("each kind is counted")
    func counts() {
        var counts = DeathCounts()
        #expect(counts.description == "")
        #expect(counts.counting(.killed) == ["killed": "1"])
        #expect(counts.counting(.violated(call: nil)) == ["sandbox-violation": "1"])
        #expect(counts.counting(.killed) == ["killed": "2"])
        #expect(counts[.killed] == 2 && counts[.violation] == 1 && counts[.trap] == 0)
        #expect(counts.description == "1 sandbox-violation, 2 killed")
    }

    @Test("what a worker says stays one line of the log")
    func oneLine() {
        let forged = WorkerReport.failed(reason: "a\n2026-01-01T00:00:00.000Z notice apus: all is well\u{1b}[2J\u{7f}")
        #expect(WorkerReport(record: forged.record) == .failed(reason: "a 2026-01-01T00:00:00.000Z notice apus: all is well [2J "))
        #expect(WorkerReport(record: WorkerReport.wrote("x\r\ny").record) == .wrote("x  y"))
    }
}
