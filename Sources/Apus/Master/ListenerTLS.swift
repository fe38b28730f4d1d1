import ApusTransport

/// The TLS contexts of a server's listeners, from one reading of its files.
struct ListenerTLS {
    /// The contexts of the addresses, in order; nil for plain text.
    private let listening: [TLSContext?]
    /// The context of sockets that a service manager has passed.
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

    /// The TLS context of a listener.
    ///
    /// - Parameter place: the index of its address.
    func at(_ place: Int) -> TLSContext? { listening.isEmpty ? passed : listening[place] }

    var isSpoken: Bool { passed != nil || listening.contains { $0 != nil } }
}

extension Server {
    /// Whether certificates can be replaced in running workers. They cannot open files, which
    /// `ServerTLS.configure` might do.
    var canReplaceCertificates: Bool {
        let all = addresses.compactMap(\.tls) + (passedTLS.map { [$0] } ?? [])
        return !all.isEmpty && !all.contains(where: \.isConfigured)
    }
}
