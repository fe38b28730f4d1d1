import ApusBus
import ApusPlatform
import CSeccomp

/// Loads the table of system calls into the kernel (`seccomp(2)`, by libseccomp).
enum SystemCallFilter {
    static var isSupported: Bool { apus_has_seccomp() != 0 }

    /// Loads the filter, irreversibly. A call that is not allowed is noted in `row` and ends the
    /// process with SIGSYS.
    ///
    /// - Parameter controlChannel: The descriptor of the worker's control channel; nil: there is
    ///   none, and the calls that only it needs are not allowed.
    static func load(
        _ rules: [SystemCalls.Rule], controlChannel: Int32?, noting row: Scoreboard.Row?
    ) throws(SandboxError) {
        guard let filter = unsafe seccomp_init(row == nil ? apus_act_kill_process : apus_act_trap) else {
            throw SandboxError("seccomp: cannot create a filter")
        }
        defer { unsafe seccomp_release(filter) }
        // Entries of other architectures, such as that of 32-bit programs, are closed.
        try unsafe check(seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, apus_act_kill_process), "other architectures")
        try unsafe check(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2), "binary tree")
        // The filter applies to threads that the application has started before, too.
        try unsafe check(seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1), "all threads")
        if let row {
            guard unsafe apus_note_violations(row.violationCell) == 0 else {
                throw SandboxError("seccomp: cannot install the handler of violations")
            }
            try unsafe check(seccomp_rule_add_array(filter, apus_act_kill_process, apus_deadly_call(), 0, nil), "killing after a violation")
        }
        let rules = rules.filter { rule in rule.insteadOf.map { unsafe seccomp_syscall_resolve_name($0) < 0 } ?? true }
        let allowed = Dictionary(grouping: rules, by: \.name).mapValues(Self.lines)
        for (name, lines) in allowed {
            if lines.isEmpty { try unsafe add(filter, apus_act_allow, name, []) }
            for line in lines where controlChannel != nil || !line.contains(where: { $0.value == .controlChannel }) {
                try unsafe add(filter, apus_act_allow, name, line, controlChannel: controlChannel)
            }
        }
        for refusal in SystemCalls.refused {
            let action = apus_act_errno(UInt16(refusal.errno))
            switch (allowed[refusal.name], refusal.conditions) {
            case (nil, []): try unsafe add(filter, action, refusal.name, [])
            // All of it is allowed; or all of it would be refused, but a part is allowed.
            case ([], _), (_, []): continue
            case (let lines, let refused):
                for line in refused where lines?.contains(line) != true { try unsafe add(filter, action, refusal.name, line) }
            }
        }
        try unsafe check(seccomp_load(filter), "the kernel")
    }

    /// The conditions under which one call is allowed, each once. Empty: it is allowed without
    /// conditions, because some feature needs that.
    private static func lines(_ rules: [SystemCalls.Rule]) -> [[SystemCalls.Condition]] {
        if rules.contains(where: \.conditions.isEmpty) { return [] }
        return rules.flatMap(\.conditions).reduce(into: []) { lines, line in if !lines.contains(line) { lines.append(line) } }
    }

    private static func add(
        _ filter: scmp_filter_ctx, _ action: UInt32, _ name: String, _ conditions: [SystemCalls.Condition],
        controlChannel: Int32? = nil
    ) throws(SandboxError) {
        let number = unsafe seccomp_syscall_resolve_name(name)
        // Below zero: this architecture does not have the call.
        guard number >= 0 else { return }
        let comparisons = conditions.map { condition in
            let value =
                switch condition.value {
                case .number(let number): number
                case .ownProcess: UInt64(Process.id)
                case .controlChannel: UInt64(UInt32(bitPattern: controlChannel ?? -1))
                }
            return scmp_arg_cmp(arg: condition.argument, op: SCMP_CMP_MASKED_EQ, datum_a: condition.mask, datum_b: value)
        }
        try unsafe check(seccomp_rule_add_array(filter, action, number, UInt32(comparisons.count), comparisons), name)
    }

    private static func check(_ result: Int32, _ what: String) throws(SandboxError) {
        guard result == 0 else { throw SandboxError("seccomp: \(what): \(SystemError(code: -result, call: "seccomp").reason)") }
    }

    /// The name of a system call of this architecture.
    static func name(ofCall number: Int32) -> String {
        guard let name = unsafe seccomp_syscall_resolve_num_arch(seccomp_arch_native(), number) else { return "call \(number)" }
        defer { unsafe apus_free(name) }
        return unsafe String(cString: name)
    }
}
