import CSeccomp
import Glibc
import Testing

@testable import ApusSupervisor

@Suite("The table of system calls")
struct SystemCallsTests {
    private static let everything = SystemCalls.allowed(for: Set(SystemCalls.Feature.allCases))

    @Test("no name stands there twice for one feature, and each has a reason")
    func entries() {
        let names = SystemCalls.all.map { "\($0.name) for \($0.feature)" }
        #expect(Set(names).count == names.count)
        #expect(SystemCalls.all.allSatisfy { !$0.reason.isEmpty })
        // One row for what is refused whole, one for what is refused beside what a feature allows.
        let refused = SystemCalls.refused.map { "\($0.name) \($0.conditions.isEmpty)" }
        #expect(Set(refused).count == refused.count)
        #expect(SystemCalls.refused.allSatisfy { !$0.reason.isEmpty && $0.errno > 0 })
    }

    @Test("libseccomp knows every name")
    func names() {
        // -1 is __NR_SCMP_ERROR; below it are calls that only other machines have.
        for name in SystemCalls.all.map(\.name) + SystemCalls.refused.map(\.name) {
            #expect(seccomp_syscall_resolve_name(name) != -1, "\(name)")
        }
        #expect(seccomp_syscall_resolve_name("no_such_call") == -1)
    }

    @Test("at most 50 are allowed without permissions, at least 9 of them with conditions")
    func counts() {
        let features = Set(SystemCalls.Feature.allCases).subtracting(SystemCalls.Feature.permissions)
        // One of a pair stands in for the other where a machine has no such call.
        #expect(Set(SystemCalls.allowed(for: features).filter { $0.insteadOf == nil }.map(\.name)).count <= 50)
        #expect(SystemCalls.allowed(for: [.base]).count { !$0.conditions.isEmpty } >= 9)
        #expect(SystemCalls.allowed(for: []).count < Self.everything.count)
    }

    @Test("what every event needs has no conditions", arguments: ["recvfrom", "sendto", "sendmsg", "epoll_wait", "epoll_pwait"])
    func hot(name: String) throws {
        #expect(try #require(SystemCalls.all.first { $0.name == name }).conditions.isEmpty)
    }

    @Test("a feature that is off adds nothing", arguments: SystemCalls.Feature.allCases)
    func features(feature: SystemCalls.Feature) {
        let others = Set(SystemCalls.Feature.allCases).subtracting([feature])
        #expect(feature == .base || !SystemCalls.allowed(for: others).contains { $0.feature == feature })
        #expect(SystemCalls.allowed(for: [feature]).allSatisfy { $0.feature == .base || $0.feature == feature })
    }
}
