import ApusCodec
import ApusPlatform
import ApusTransport

/// Checks a server's description without listening or writing.
struct ServerCheck {
    let server: Server

    /// All errors that `validate` finds.
    func faults() -> [ServerFault] {
        var faults: [ServerFault] = []
        func check(at index: Int? = nil, _ body: () throws(ConfigurationError) -> Void) {
            do { try body() } catch { faults.append(ServerFault(error: error, index: index)) }
        }
        check { () throws(ConfigurationError) in _ = try server.checkedWorkers }
        if let conflict = ExtensionNegotiation.conflict(in: server.extensions) { faults.append(ServerFault(error: .extensions(conflict))) }
        faults += server.originFaults
        check { () throws(ConfigurationError) in _ = try server.configuredRoutes }
        check { () throws(ConfigurationError) in _ = try ListenerTLS(server, ticketKeys: TicketKeys()) }
        check { () throws(ConfigurationError) in try checkCertificateInterval() }
        check { () throws(ConfigurationError) in _ = try Application.prepare(server.clientTLS) }
        faults += server.limits.contradictions.map { ServerFault(error: $0.error, conflict: $0.other.map { .limit($0) }) }
        var taken: [SocketAddress: Int] = [:]
        for (index, (address, _)) in server.addresses.enumerated() {
            check(at: index) { () throws(ConfigurationError) in
                let place = try address.socketAddress
                if case .unix(_, let access) = address { try access.check(for: address) }
                // Each port 0 is a different port.
                guard place.port != 0 else { return }
                if let first = taken[place] {
                    faults.append(ServerFault(error: .listen("\(address) is given twice"), index: index, conflict: .address(first)))
                } else {
                    taken[place] = index
                }
            }
        }
        faults += server.sandbox.faults.map { ServerFault(error: $0) }
        for file in [server.pidFile, server.portFile] {
            guard let file else { continue }
            do { try FileSystem.checkDirectory(of: file) } catch { faults.append(ServerFault(error: .file(file, error.reason))) }
        }
        check { () throws(ConfigurationError) in try checkFiles() }
        return faults
    }

    private static let shortestCertificateInterval = Duration.milliseconds(10)

    /// Checks that the master does not spin.
    func checkCertificateInterval() throws(ConfigurationError) {
        guard let interval = server.certificateCheckInterval, interval < Self.shortestCertificateInterval else { return }
        throw .certificateCheckInterval(
            "expected nil or at least \(Quantity.text(Self.shortestCertificateInterval)), got \(interval)")
    }

    /// Checks that the pid file and the port file are two files.
    func checkFiles() throws(ConfigurationError) {
        guard let pidFile = server.pidFile, let portFile = server.portFile, FileSystem.isSamePlace(pidFile, portFile) else { return }
        throw .file(portFile, "it is the pid file, too")
    }
}
