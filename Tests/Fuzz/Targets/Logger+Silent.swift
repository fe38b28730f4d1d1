package import Logging

extension Logger {
    /// Says nothing: a fuzzer turns connections away all day.
    package static var silent: Logger { Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() } }
}
