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
        var crashMessage: String?
        let kind: WorkerDeath.Kind
        let text: String
        var testDescription: String { text }
    }

    @Test(
        "a death is named by how the process ended and what it left behind",
        arguments: [
            Case(end: .exited(0), kind: .exit, text: "exit 0"),
            Case(end: .exited(3), reason: "the database is on fire", kind: .exit, text: "exit 3 (the database is on fire)"),
            Case(end: .signaled(SIGSYS), violation: resolve("execve"), kind: .violation, text: "sandbox-violation: execve"),
            Case(end: .signaled(SIGSYS), violation: 99_999, kind: .violation, text: "sandbox-violation: call 99999"),
            Case(end: .signaled(SIGSYS), kind: .violation, text: "sandbox-violation: unknown system call"),
            Case(end: .signaled(SIGILL), kind: .trap, text: "trap (killed by SIGILL)"),
            Case(
                end: .signaled(SIGILL), crashMessage: "Fatal error: Index out of range", kind: .trap,
                text: "trap: Fatal error: Index out of range (killed by SIGILL)"),
            Case(end: .signaled(SIGTRAP), kind: .trap, text: "trap (killed by SIGTRAP)"),
            Case(end: .signaled(SIGFPE), kind: .trap, text: "trap (killed by SIGFPE)"),
            Case(end: .signaled(SIGABRT), kind: .trap, text: "trap (killed by SIGABRT)"),
            Case(end: .signaled(SIGABRT), wasAborted: true, crashMessage: "a warning", kind: .aborted, text: "aborted (killed by SIGABRT)"),
            // It was to be aborted, but died otherwise.
            Case(end: .signaled(SIGSEGV), wasAborted: true, kind: .segfault, text: "segfault (killed by SIGSEGV)"),
            Case(end: .signaled(SIGSEGV), violation: 59, kind: .segfault, text: "segfault (killed by SIGSEGV)"),
            Case(end: .signaled(SIGBUS), kind: .segfault, text: "segfault (killed by SIGBUS)"),
            Case(end: .signaled(SIGKILL), kind: .killed, text: "killed by SIGKILL"),
            Case(end: .signaled(SIGTERM), kind: .signal, text: "killed by SIGTERM"),
        ])
    func deaths(one: Case) {
        let death = WorkerDeath(
            one.end, violation: one.violation, wasAborted: one.wasAborted, reason: one.reason, crashMessage: one.crashMessage)
        #expect(death.kind == one.kind)
        #expect(death.description == one.text)
    }

    @Test("the last line counts, but not what follows the fatal error of the runtime")
    func lastLine() {
        var message = CrashMessage()
        let now = MonotonicTime(milliseconds: 10_000)
        #expect(message.text(at: now) == nil)
        message.wrote("a warning", at: now)
        message.wrote("another", at: now)
        #expect(message.text(at: now) == "another")
        message.wrote("main.swift:5: Fatal error: boo", at: now)
        message.wrote("Current stack trace:", at: now)
        #expect(message.text(at: now) == "main.swift:5: Fatal error: boo")
        message.wrote("Fatal error: again", at: now)
        #expect(message.text(at: now) == "Fatal error: again")
    }

    @Test("a line that was written long before a trap is not its reason")
    func oldLine() {
        var message = CrashMessage()
        let now = MonotonicTime(milliseconds: 10_000)
        message.wrote("2026-11-29 10:00:00.000 apus[7:7] a log line", at: now)
        #expect(message.text(at: now + .milliseconds(1000)) != nil)
        #expect(message.text(at: now + .milliseconds(1001)) == nil)
        message.wrote("Fatal error: boo", at: now)
        #expect(message.text(at: now + .seconds(30)) == "Fatal error: boo")
        #expect(message.text(at: now + .milliseconds(30_001)) == nil)
        // The application logged that text, and goes on.
        message.wrote("free(): invalid pointer", at: now + .seconds(31))
        #expect(message.text(at: now + .seconds(31)) == "free(): invalid pointer")
    }

    @Test("each kind is counted")
    func counts() {
        var counts = DeathCounts()
        #expect(counts.description == "")
        #expect(counts.add(.killed) == ["killed": "1"])
        #expect(counts.add(.violated(call: nil)) == ["sandbox-violation": "1"])
        #expect(counts.add(.killed) == ["killed": "2"])
        #expect(counts[.killed] == 2 && counts[.violation] == 1 && counts[.trap] == 0)
        #expect(counts.description == "1 sandbox-violation, 2 killed")
    }

    @Test("a report of a worker stays one line of the log")
    func oneLine() {
        let forged = WorkerReport.failed(reason: "a\n2026-01-01T00:00:00.000Z notice apus: all is well\u{1b}[2J\u{7f}")
        #expect(WorkerReport(record: forged.record) == .failed(reason: "a 2026-01-01T00:00:00.000Z notice apus: all is well [2J "))
        #expect(WorkerReport(record: WorkerReport.wrote("x\r\ny").record) == .wrote("x  y"))
    }
}
