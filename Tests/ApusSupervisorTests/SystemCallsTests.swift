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
        let refused = SystemCalls.refused.map(\.name)
        #expect(Set(refused).count == refused.count)
    }

    @Test("libseccomp knows every name")
    func names() {
        // -1 is __NR_SCMP_ERROR; below it are calls that only other machines have.
        for name in SystemCalls.all.map(\.name) + SystemCalls.refused.map(\.name) {
            #expect(seccomp_syscall_resolve_name(name) != -1, "\(name)")
        }
        #expect(seccomp_syscall_resolve_name("no_such_call") == -1)
    }

    @Test("at most 48 are allowed with every feature on, at least 9 of them with conditions")
    func counts() {
        #expect(Set(Self.everything.map(\.name)).count <= 48)
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
