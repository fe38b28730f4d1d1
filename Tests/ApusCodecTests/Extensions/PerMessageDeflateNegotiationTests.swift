import ApusCodec
import Testing

typealias DeflateConfiguration = PerMessageDeflate.Configuration

extension PerMessageDeflate.Configuration {
    static func with(_ change: (inout Self) -> Void) -> Self {
        var configuration = Self()
        change(&configuration)
        return configuration
    }

    static let takingOver = with {
        $0.serverContextTakeover = .allowed
        $0.clientContextTakeover = .allowed
    }
}

@Suite("RFC 7692 §7.1 parameters of permessage-deflate")
struct PerMessageDeflateNegotiationTests {
    static let snct = "server_no_context_takeover"
    static let cnct = "client_no_context_takeover"

    // MARK: Server

    struct Offer: Sendable, CustomTestStringConvertible {
        let configuration: DeflateConfiguration
        /// Parameters of the offer and of the response; nil: declined.
        let offer: String
        let answer: String?
        var testDescription: String { "'\(offer)' gets '\(answer ?? "nothing")'" }

        init(_ offer: String, _ answer: String?, _ configuration: DeflateConfiguration = .takingOver) {
            self.offer = offer
            self.answer = answer
            self.configuration = configuration
        }
    }

    static let small = DeflateConfiguration.with {
        $0 = .takingOver
        $0.serverMaxWindowBits = 10
        $0.clientMaxWindowBits = 11
    }

    static let offers = [
        // The defaults decline context takeover, offered or not (§7.1.1.1, §7.1.1.2).
        Offer("", "\(snct); \(cnct)", .init()), Offer("\(cnct); \(snct)", "\(snct); \(cnct)", .init()),
        // Context takeover.
        Offer("", ""), Offer(snct, snct), Offer(cnct, cnct), Offer("\(cnct); \(snct)", "\(snct); \(cnct)"),
        Offer("", cnct, .with { $0.serverContextTakeover = .allowed }), Offer("", snct, .with { $0.clientContextTakeover = .allowed }),
        Offer("\(snct)=1", nil), Offer("\(snct)=true", nil), Offer("\(cnct)=1", nil), Offer("\(snct); \(snct)", nil),
        Offer("\(cnct); \(cnct)", nil),
        // server_max_window_bits (§7.1.2.1): "a decimal integer value without leading zeroes
        // between 8 to 15 inclusive".
        Offer("server_max_window_bits=15", "server_max_window_bits=15"), Offer("server_max_window_bits=9", "server_max_window_bits=9"),
        Offer("server_max_window_bits=12", "server_max_window_bits=12"),
        Offer("server_max_window_bits=\"12\"", "server_max_window_bits=12"),
        Offer("server_max_window_bits=8", "server_max_window_bits=8"), Offer("server_max_window_bits=7", nil),
        Offer("server_max_window_bits=16", nil),
        Offer("server_max_window_bits=0", nil), Offer("server_max_window_bits=015", nil), Offer("server_max_window_bits=09", nil),
        Offer("server_max_window_bits=+9", nil), Offer("server_max_window_bits=-9", nil), Offer("server_max_window_bits=0xF", nil),
        Offer("server_max_window_bits=1e1", nil), Offer("server_max_window_bits=115", nil),
        Offer("server_max_window_bits=18446744073709551625", nil), Offer("server_max_window_bits", nil),
        Offer("server_max_window_bits=10; server_max_window_bits=10", nil), Offer("Server_max_window_bits=10", nil),
        // client_max_window_bits (§7.1.2.2): in the response only if the client offered it.
        Offer("client_max_window_bits", ""), Offer("client_max_window_bits=15", ""),
        Offer("client_max_window_bits=10", "client_max_window_bits=10"), Offer("client_max_window_bits=8", "client_max_window_bits=8"),
        Offer("client_max_window_bits=7", nil), Offer("client_max_window_bits=16", nil), Offer("client_max_window_bits=015", nil),
        Offer("client_max_window_bits=", nil), Offer("client_max_window_bits; client_max_window_bits=10", nil),
        // Unknown parameters.
        Offer("x", nil), Offer("\(snct); x=1", nil), Offer("mux", nil),
        // A server with smaller windows.
        Offer("", "server_max_window_bits=10", small), Offer("server_max_window_bits=15", "server_max_window_bits=10", small),
        Offer("server_max_window_bits=9", "server_max_window_bits=9", small),
        Offer("server_max_window_bits=8", "server_max_window_bits=8", small),
        Offer("client_max_window_bits", "server_max_window_bits=10; client_max_window_bits=11", small),
        Offer("client_max_window_bits=15", "server_max_window_bits=10; client_max_window_bits=11", small),
        Offer("client_max_window_bits=9", "server_max_window_bits=10; client_max_window_bits=9", small),
        // All four, in another order.
        Offer(
            "client_max_window_bits=12; \(cnct); server_max_window_bits=13; \(snct)",
            "\(snct); \(cnct); server_max_window_bits=13; client_max_window_bits=12"),
    ]

    static func field(_ parameters: String) -> String { parameters.isEmpty ? "permessage-deflate" : "permessage-deflate; \(parameters)" }

    @Test("a server's response to an offer", arguments: offers)
    func accept(_ row: Offer) throws {
        guard let offered = ExtensionParameters.parse(Self.field(row.offer)) else {
            #expect(row.answer == nil)
            return
        }
        let agreement = PerMessageDeflate(row.configuration).accept(try #require(offered.first))
        #expect(agreement.map { "\($0.answer)" } == row.answer.map(Self.field))
    }

    @Test("after a declined offer the next one is used, or no compression", arguments: offers.filter { $0.answer == nil })
    func next(_ row: Offer) throws {
        guard ExtensionParameters.parse(Self.field(row.offer)) != nil else { return }
        let extensions = [PerMessageDeflate(row.configuration)]
        #expect(try ExtensionNegotiation.answer(Self.field(row.offer), with: extensions) { _ in true } == nil)
        let both = Self.field(row.offer) + ", " + Self.field("server_max_window_bits=9")
        #expect(try ExtensionNegotiation.answer(both, with: extensions) { _ in true }?.answer.hasSuffix("server_max_window_bits=9") == true)
    }

    @Test("obsolete extension names are neither offered nor accepted")
    func olderNames() throws {
        let extensions = [PerMessageDeflate()]
        for name in ["deflate-frame", "x-webkit-deflate-frame", "permessage-bzip2", "PERMESSAGE-DEFLATE"] {
            #expect(try ExtensionNegotiation.answer(name, with: extensions) { _ in true } == nil)
        }
        #expect(ExtensionNegotiation.offers(of: extensions)?.contains("frame") == false)
    }

    // MARK: Client

    @Test(
        "a client's offers",
        arguments: [
            (DeflateConfiguration(), "\(snct); \(cnct); client_max_window_bits"), (.takingOver, "client_max_window_bits"),
            (.with { $0.serverContextTakeover = .allowed }, "\(cnct); client_max_window_bits"),
            (.with { $0.clientContextTakeover = .allowed }, "\(snct); client_max_window_bits"),
            (small, "server_max_window_bits=10; client_max_window_bits=11"),
        ])
    func offering(configuration: DeflateConfiguration, parameters: String) {
        #expect(PerMessageDeflate(configuration).offers().map(\.description) == [Self.field(parameters)])
    }

    struct Reply: Sendable, CustomTestStringConvertible {
        let configuration: DeflateConfiguration
        let answer: String
        let isAgreed: Bool
        var testDescription: String { "'\(answer)' is \(isAgreed ? "agreed to" : "refused")" }

        init(_ answer: String, _ isAgreed: Bool, _ configuration: DeflateConfiguration = .takingOver) {
            self.answer = answer
            self.isAgreed = isAgreed
            self.configuration = configuration
        }
    }

    static let replies = [
        Reply("", true), Reply(snct, true), Reply(cnct, true), Reply("\(cnct); \(snct)", true), Reply("\(snct)=1", false),
        Reply("\(cnct)=1", false),
        Reply("\(snct); \(snct)", false), Reply("\(cnct); \(cnct)", false), Reply("x", false), Reply("\(snct); x", false),
        // Offered without takeover of the server's context: the response must grant it (§7.1.1.1).
        Reply("", false, .init()), Reply(cnct, false, .init()), Reply(snct, true, .init()), Reply("\(snct); \(cnct)", true, .init()),
        // A server may use a smaller window without an offer.
        Reply("server_max_window_bits=15", true), Reply("server_max_window_bits=9", true), Reply("server_max_window_bits=8", true),
        Reply("server_max_window_bits=7", false), Reply("server_max_window_bits=16", false), Reply("server_max_window_bits=015", false),
        Reply("server_max_window_bits=09", false), Reply("server_max_window_bits", false),
        Reply("server_max_window_bits=10; server_max_window_bits=10", false),
        Reply("client_max_window_bits=15", true), Reply("client_max_window_bits=9", true), Reply("client_max_window_bits=8", true),
        Reply("client_max_window_bits=7", false), Reply("client_max_window_bits=16", false), Reply("client_max_window_bits=010", false),
        Reply("client_max_window_bits", false), Reply("client_max_window_bits=9; client_max_window_bits=9", false),
        // Offered a window of 10: a larger one, or none, is refused.
        Reply("server_max_window_bits=10", true, small), Reply("server_max_window_bits=9; client_max_window_bits=9", true, small),
        Reply("server_max_window_bits=11", false, small), Reply("", false, small), Reply("client_max_window_bits=11", false, small),
    ]

    @Test("a client checks the server's response", arguments: replies)
    func agree(_ row: Reply) {
        do throws(ExtensionError) {
            let chain = try ExtensionNegotiation.agree(to: Self.field(row.answer), with: [PerMessageDeflate(row.configuration)])
            #expect(chain != nil && row.isAgreed)
        } catch {
            guard case .negotiation(let reason) = error else {
                Issue.record("\(error)")
                return
            }
            #expect(!row.isAgreed, "\(reason)")
            #expect(!reason.isEmpty)
        }
    }

    @Test("compression that was not offered is refused")
    func unasked() {
        #expect(throws: ExtensionError.self) { _ = try ExtensionNegotiation.agree(to: "permessage-deflate", with: []) }
        #expect(throws: ExtensionError.self) { _ = try ExtensionNegotiation.agree(to: "permessage-deflate", with: [Labelling("x")]) }
    }

    @Test("server and client agree with any configurations")
    func bothOurs() throws {
        var pairs = 0
        for server in DeflateConfiguration.varieties {
            for client in DeflateConfiguration.varieties {
                _ = try DeflatePair(server: server, client: client)
                pairs += 1
            }
        }
        #expect(pairs == 24 * 24)
    }
}

extension PerMessageDeflate.Configuration {
    /// Every combination of context takeover with some windows.
    static let varieties: [Self] = [Self.ContextTakeover.never, .allowed].flatMap { server in
        [Self.ContextTakeover.never, .allowed].flatMap { client in
            [(15, 15), (9, 15), (15, 9), (9, 9), (10, 12), (13, 14)].map { serverBits, clientBits in
                .with {
                    $0.serverContextTakeover = server
                    $0.clientContextTakeover = client
                    $0.serverMaxWindowBits = serverBits
                    $0.clientMaxWindowBits = clientBits
                    $0.threshold = 0
                }
            }
        }
    }
}

/// The two ends of a connection with permessage-deflate.
struct DeflatePair {
    let server: ExtensionChain
    let client: ExtensionChain

    init(server: DeflateConfiguration, client: DeflateConfiguration) throws {
        let clients = [PerMessageDeflate(client)]
        let offers = try #require(ExtensionNegotiation.offers(of: clients))
        let agreement = try #require(try ExtensionNegotiation.answer(offers, with: [PerMessageDeflate(server)]) { _ in true })
        self.server = agreement.chain
        self.client = try #require(try ExtensionNegotiation.agree(to: agreement.answer, with: clients))
    }

    init(_ both: DeflateConfiguration) throws { try self.init(server: both, client: both) }
}
