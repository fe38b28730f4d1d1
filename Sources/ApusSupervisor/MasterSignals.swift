import ApusPlatform

/// The signals of the master process.
enum MasterSignals {
    /// Blocked in the master and read from a descriptor.
    static let handled = [
        Signal.terminate, Signal.interrupt, Signal.quit, Signal.hangUp, Signal.user1, Signal.user2,
        Signal.terminalInput, Signal.terminalOutput, Signal.windowChange, Signal.logLevel,
    ]

    /// Sets the dispositions of the master.
    ///
    /// - Returns: The descriptor that `handled` are read from.
    static func claim() throws(SystemError) -> OwnedDescriptor {
        let descriptor = try Signal.descriptor(for: handled)
        // Children are reaped here, even if the parent of the master ignored SIGCHLD.
        Signal.restoreDefault(Signal.child)
        Signal.ignore(Signal.brokenPipe)
        Signal.ignore(Signal.fileSize)
        return descriptor
    }

    /// Sets the dispositions of a child. A terminal sends Ctrl-C and hang-up to the whole group, so
    /// workers ignore them: the master sends them an order instead.
    ///
    /// - Parameter blocked: Signals that stay blocked, until the child reads them from a
    ///   descriptor.
    static func restoreInChild(keepingBlocked blocked: [Int32]) {
        for signal in handled where !blocked.contains(signal) { Signal.ignore(signal) }
        // With SWIFT_BACKTRACE set, the Swift runtime installs backtrace handlers when a program
        // starts, and a fork inherits them. They would start a debugger while a worker dies, and
        // hide the signal that killed it.
        for signal in Signal.faults + [Signal.quit] { Signal.restoreDefault(signal) }
        Signal.unblock(Signal.faults + handled.filter { !blocked.contains($0) })
    }
}
