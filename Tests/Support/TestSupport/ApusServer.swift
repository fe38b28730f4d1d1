public import Glibc

/// An `apus serve` on a free port of 127.0.0.1.
public final class ApusServer: @unchecked Sendable {
    public let process: ChildProcess
    /// One per listener.
    public let addresses: [String]
    private let directory: TemporaryDirectory

    /// Starts it and waits until all workers accept.
    public convenience init(workers: Int = 1, _ arguments: String..., in place: String? = nil) throws {
        try self.init(workers: workers, options: arguments, in: place)
    }

    public init(workers: Int = 1, options arguments: [String], in place: String? = nil) throws {
        let directory = try TemporaryDirectory()
        self.directory = directory
        let portFile = directory.path + "/ports"
        let listen = arguments.contains("--listen") ? [] : ["--listen", "127.0.0.1:0"]
        let command = [Places.command, "serve", "--workers", "\(workers)", "--port-file", portFile] + listen + arguments
        let process = try ChildProcess(command, in: place)
        self.process = process
        let isUp = Deadline(after: .seconds(20)).wait { Files.exists(portFile) || process.hasEnded != nil }
        guard isUp, let text = Files.text(portFile) else {
            throw TestFailure("\(command.joined(separator: " ")) did not come up:\n\(process.standardError)")
        }
        addresses = text.split(separator: "\n").map(String.init)
    }

    /// The first listener's port.
    public var port: UInt16 { addresses.first?.split(separator: ":").last.flatMap { UInt16($0) } ?? 0 }

    /// The worker processes that live.
    public var workers: [pid_t] { process.group.filter { $0.parent == process.pid }.map(\.pid).sorted() }

    /// A connection to the first listener.
    public func connect(timeout: Duration = .seconds(10)) throws -> RawClient { try RawClient(port: port, timeout: timeout) }

    /// Ends it with a signal and gives how.
    public func end(_ signal: Int32 = SIGTERM, within duration: Duration = .seconds(10)) throws -> ChildProcess.End {
        process.signal(signal)
        return try process.wait(within: duration)
    }
}
