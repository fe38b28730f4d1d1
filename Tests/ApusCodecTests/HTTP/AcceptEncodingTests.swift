import ApusCodec
import Testing

@Suite("RFC 9110 §12.5.3: Accept-Encoding")
struct AcceptEncodingTests {
    static func accepted(_ values: [String]) throws -> AcceptEncoding {
        var fields = try HTTPFields(["Host": "h"])
        for value in values { try fields.append("Accept-Encoding", value) }
        return AcceptEncoding(fields)
    }

    @Test(
        "the best of br, zstd, gzip and identity",
        arguments: [
            ([], .identity), ([""], .identity), (["gzip"], .gzip), (["x-gzip"], .gzip), (["GZIP"], .gzip),
            (["gzip, deflate, br, zstd"], .br),
            (["gzip, deflate"], .gzip), (["gzip", "br"], .br), (["deflate"], .identity), (["identity"], .identity), (["zstd,gzip"], .zstd),
            (["br;q=0.5, gzip"], .gzip), (["br;q=0.5, gzip;q=0.5"], .br), (["br;q=0.001, gzip;q=0.002"], .gzip), (["gzip;q=1.000"], .gzip),
            (["gzip;q=0"], .identity), (["gzip;q=0.0, br;q=0.000"], .identity), (["gzip;q=0.001"], .gzip),
            (["gzip ; q=0.8 , br;Q=0.9"], .br),
            (["gzip;q=0.5, identity"], .identity), (["gzip;q=0.5, identity;q=0.5"], .gzip), (["gzip;q=0.5, identity;q=0.6"], .identity),
            (["*"], .br), (["*;q=0.5"], .br), (["*, br;q=0"], .zstd), (["br;q=0, *"], .zstd), (["gzip, *;q=0.1"], .gzip),
            (["*;q=0, gzip"], .gzip),
            (["gzip;q=0.1, *;q=0.5"], .br), (["identity;q=0, gzip"], .gzip), (["identity;q=0"], nil), (["*;q=0"], nil),
            (["gzip;q=0, *;q=0"], nil),
            (["identity;q=0.5, *;q=0"], .identity),
            // The first of a repeated coding; malformed elements are ignored.
            (["gzip;q=0, gzip"], .identity), (["gzip, gzip;q=0"], .gzip), (["gzip;q=1.001"], .identity), (["gzip;q=2"], .identity),
            (["gzip;q=0.1234"], .identity), (["gzip;q="], .identity), (["gzip;q"], .identity), (["gzip;"], .identity),
            (["gzip;q=-1"], .identity),
            (["gzip;q=.5"], .identity), (["gzip;q=1,5, br;q=0.1"], .gzip), (["gzip;q=0x1"], .identity), (["gzip;x=1"], .identity),
            (["gzip;q=1;q=0"], .identity), (["gzip br"], .identity), (["gzip;q=0."], .identity), (["gzip;q=1."], .gzip),
            ([",,gzip,,"], .gzip),
            (["**, g*"], .identity), (["gzipp"], .identity),
        ] as [([String], ContentCoding?)])
    func all(values: [String], expected: ContentCoding?) throws {
        #expect(try Self.accepted(values).preferred(of: [.br, .zstd, .gzip, .identity]) == expected)
    }

    @Test("the server's order decides between equal weights, and only what it has is chosen")
    func order() throws {
        let browser = try Self.accepted(["gzip, deflate, br, zstd"])
        #expect(browser.preferred(of: [.gzip, .br, .identity]) == .gzip)
        #expect(browser.preferred(of: [.zstd, .br, .identity]) == .zstd)
        #expect(browser.preferred(of: [.identity, .gzip]) == .gzip, "identity is not listed")
        #expect(browser.preferred(of: [.identity]) == .identity)
        #expect(browser.preferred(of: []) == nil)
        let equal = try Self.accepted(["identity, gzip"])
        #expect(equal.preferred(of: [.identity, .gzip]) == .identity)
        #expect(equal.preferred(of: [.gzip, .identity]) == .gzip)
    }

    @Test("weights in thousandths")
    func weights() throws {
        let accepted = try Self.accepted(["br;q=0.75, gzip;q=0.123, *;q=0.01"])
        #expect(ContentCoding.allCases.map { accepted.weight(of: $0) } == [750, 10, 123, 10])
        #expect(ContentCoding.allCases.map { coding in (try? Self.accepted([]))?.weight(of: coding) } == [0, 0, 0, 1])
    }
}
