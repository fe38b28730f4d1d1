import CLinux

/// This process's standard error, as the C library and the Swift runtime use it.
package enum StandardError {
    /// What is written to the C library's `stderr`, as the runtime's "Fatal error: …" is, goes to a channel, too, until the process ends: one
    /// record a line, behind `tag`, without its end, of at most `maxBytes`. Nothing waits for the channel; what it does not take is not told.
    ///
    /// Writing to descriptor 2, as loggers do, stays as it is.
    package static func relay(to channel: Int32, tag: UInt8, maxBytes: Int) { apus_relay_errors(channel, tag, maxBytes) }
}
