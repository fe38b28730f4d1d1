import ApusTransport

/// The TLS of a server's listeners, made from one reading of its files.
struct ListenerTLS {
    /// For each address that is listened on, in order; nil where TLS is not spoken.
    private let listening: [TLSContext?]
    /// For those that a service manager has passed.
    private let passed: TLSContext?
    let files: TLSFiles

    init(_ server: Server, ticketKeys: TicketKeys, files: TLSFiles = TLSFiles()) throws(ConfigurationError) {
        func context(_ options: ServerTLS?, _ place: String) throws(ConfigurationError) -> TLSContext? {
            do {
                return try options.map { options throws(TLSSetupError) in
                    try TLSContext(options, ticketKeys: ticketKeys, files: files)
                }
            } catch {
                throw .tls(place, error.description)
            }
        }
        self.files = files
        passed = try context(server.passedTLS, "the service manager's sockets")
        var listening: [TLSContext?] = []
        for (address, options) in server.addresses { listening.append(try context(options, "\(address)")) }
        self.listening = listening
    }

    /// The TLS of a listener, by its address's place among those listened on.
    func at(_ place: Int) -> TLSContext? { listening.isEmpty ? passed : listening[place] }

    var isSpoken: Bool { passed != nil || listening.contains { $0 != nil } }
}

extension Server {
    /// Whether its certificates can be replaced in workers, which may open no file: `ServerTLS.configure` might want to.
    var canReplaceCertificates: Bool {
        let all = addresses.compactMap(\.tls) + (passedTLS.map { [$0] } ?? [])
        return !all.isEmpty && !all.contains(where: \.isConfigured)
    }
}
