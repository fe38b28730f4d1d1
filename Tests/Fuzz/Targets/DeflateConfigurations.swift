package import ApusCodec

/// permessage-deflate as some bytes configure it. The objects live on between inputs, as they do between the connections of a worker:
/// what one input leaves in the shared compressors must not show in the next.
package final class DeflateConfigurations {
    private var known: [UInt16: PerMessageDeflate] = [:]

    package init() {}

    /// One of 72 configurations, by the bits of `choice`.
    func extensionObject(_ choice: UInt8, threshold: Int) -> PerMessageDeflate {
        let key = UInt16(choice) << 1 | (threshold > 0 ? 1 : 0)
        if let made = known[key] { return made }
        var configuration = PerMessageDeflate.Configuration()
        configuration.serverContextTakeover = choice & 1 == 0 ? .never : .allowed
        configuration.clientContextTakeover = choice & 2 == 0 ? .never : .allowed
        configuration.serverMaxWindowBits = [15, 9, 12, 15][Int(choice >> 2 & 3)]
        configuration.clientMaxWindowBits = [15, 9, 12, 15][Int(choice >> 4 & 3)]
        configuration.level = choice & 0x40 == 0 ? 1 : 9
        configuration.memoryLevel = choice & 0x80 == 0 ? 8 : 1
        configuration.threshold = threshold
        let made = PerMessageDeflate(configuration)
        known[key] = made
        return made
    }

    /// The agreement of two configurations, by way of the fields of a handshake.
    package func agree(client: UInt8, server: UInt8, threshold: Int) -> (client: ExtensionChain, server: ExtensionChain) {
        let (client, server) = (extensionObject(client, threshold: threshold), extensionObject(server, threshold: threshold))
        guard let offers = ExtensionNegotiation.offers(of: [client]) else { fatalError("permessage-deflate is offered") }
        do {
            guard let agreed = try ExtensionNegotiation.answer(offers, with: [server], allows: { _ in true }) else {
                fatalError("our server accepts our client's offer: \(offers)")
            }
            guard let chain = try ExtensionNegotiation.agree(to: agreed.answer, with: [client]) else {
                fatalError("our client agrees to our server's answer: \(agreed.answer)")
            }
            require(chain.reservedBits == .rsv1 && agreed.chain.reservedBits == .rsv1)
            return (chain, agreed.chain)
        } catch {
            fatalError("our client and our server agree on \(offers): \(error)")
        }
    }
}
