import ApusCodec
import Testing

@Suite("RFC 7239: the client before trusted proxies")
struct ForwardedFieldsTests {
    static let trusted = try? NetworkList(parsing: ["10.0.0.0/8", "2001:db8:aaaa::/48"])

    /// The result as text: client, nearest address, scheme and host.
    static func found(_ fields: HTTPFields, _ source: ForwardedFields.Source, peer: String = "10.0.0.1") throws -> String {
        let forwarded = ForwardedFields(
            fields, from: source, peer: try #require(IPAddress(parsing: peer)), trusted: try #require(trusted))
        var text =
            switch forwarded.client {
            case .address(let address, let port):
                "\(address)\(port.map { " port \($0)" } ?? "")\(address == forwarded.nearestAddress ? "" : " is not the nearest")"
            case .obfuscated(let name): "\(name) by \(forwarded.nearestAddress)"
            case .unknown: "unknown by \(forwarded.nearestAddress)"
            }
        if let scheme = forwarded.scheme { text += " \(scheme)" }
        if let host = forwarded.host { text += " \(host)" }
        return text
    }

    @Test(
        "Forwarded",
        arguments: [
            ([], "10.0.0.1"), ([""], "10.0.0.1"), (["for=192.0.2.43"], "192.0.2.43"),
            (["For=\"192.0.2.43:47011\""], "192.0.2.43 port 47011"),
            (["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17 port 4711"), (["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (["for=192.0.2.60;proto=HTTPS;by=203.0.113.43;host=example.com"], "192.0.2.60 https example.com"),
            (["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"), (["for=192.0.2.43,for=10.1.1.1"], "192.0.2.43"),
            (["for=192.0.2.43", "for=10.1.1.1"], "192.0.2.43"), (["for=10.1.1.2, for=10.1.1.1"], "10.1.1.2"),
            (["for=192.0.2.43;proto=http, for=10.1.1.1;proto=https"], "192.0.2.43 http"),
            (["for=192.0.2.43, for=10.1.1.1;proto=https"], "192.0.2.43"), (["for=1.1.1.1;proto=https, for=192.0.2.43"], "192.0.2.43"),
            (["for=192.0.2.43;, , for=10.1.1.1 , "], "192.0.2.43"), (["for=192.0.2.43; proto=https"], "192.0.2.43 https"),
            (["for=\"[2001:db8:aaaa::1]\", for=10.1.1.1"], "2001:db8:aaaa::1"),
            // The client is not named.
            (["for=unknown"], "unknown by 10.0.0.1"), (["for=1.1.1.1, for=Unknown;proto=https"], "unknown by 10.0.0.1 https"),
            (["for=1.1.1.1, for=_hidden, for=10.1.1.1"], "_hidden by 10.1.1.1"), (["for=\"_SEVKISEK:_x\""], "_SEVKISEK by 10.0.0.1"),
            (["proto=https"], "unknown by 10.0.0.1 https"), (["for=\"192.0.2.43:_p\""], "192.0.2.43"),
            (["for=\"unknown:80\""], "unknown by 10.0.0.1"),
            // Malformed elements end the search, and leave what is right of them.
            (["for=192.0.2.43, for=10.1.1.1, for=\"10.1.1.2"], "10.0.0.1"),
            (["for=192.0.2.43, bad bad, for=10.1.1.1;proto=https"], "10.1.1.1 https"),
            (["for=1.2.3"], "10.0.0.1"), (["for=2001:db8::1"], "10.0.0.1"), (["for=\"2001:db8::1\""], "10.0.0.1"), (["for="], "10.0.0.1"),
            (["for=\"\""], "10.0.0.1"), (["for=1.1.1.1;for=2.2.2.2"], "10.0.0.1"), (["for=1.1.1.1;proto=\"a b\""], "10.0.0.1"),
            (["for=1.1.1.1;host=\"a/b\""], "10.0.0.1"), (["for=\"1.1.1.1:99999\""], "10.0.0.1"), (["for=\"1.1.1.1:\""], "10.0.0.1"),
            (["for=_"], "10.0.0.1"), (["for=\"_a!\""], "10.0.0.1"), (["for=\"[1.1.1.1]\""], "10.0.0.1"), (["for=\"[::1\""], "10.0.0.1"),
            (["for"], "10.0.0.1"), (["for=1.1.1.1 proto=https"], "10.0.0.1"),
            // What a client sends does not change how the proxies' elements are read.
            (["for=\"evil, for=192.0.2.43"], "192.0.2.43"), (["for=\"evil", "for=192.0.2.43, for=10.1.1.1"], "192.0.2.43"),
            (["for=\"evil\\\", for=\"192.0.2.43\""], "192.0.2.43"), (["for=evil\", for=192.0.2.43;by=\"a,b\\\"c,\\\\\""], "192.0.2.43"),
            (["for=\"1.1.1.1, for=2.2.2.2\""], "10.0.0.1"), (["\", for=10.1.1.1"], "10.1.1.1"),
        ] as [([String], String)])
    func forwarded(values: [String], expected: String) throws {
        var fields = try HTTPFields(["X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "ftp"])
        for value in values { try fields.append("Forwarded", value) }
        #expect(try Self.found(fields, .forwarded) == expected)
        #expect(try Self.found(fields, .forwarded, peer: "192.0.2.1") == "192.0.2.1", "a peer that is not trusted")
    }

    @Test(
        "X-Forwarded-For",
        arguments: [
            ([], "10.0.0.1"), (["192.0.2.43"], "192.0.2.43"), (["1.1.1.1, 192.0.2.43"], "192.0.2.43"),
            (["192.0.2.43, 10.1.1.1"], "192.0.2.43"),
            (["192.0.2.43", "10.1.1.1"], "192.0.2.43"), (["10.1.1.2, 10.1.1.1"], "10.1.1.2"), (["2001:db8::1"], "2001:db8::1"),
            (["[2001:db8::1]:80, 10.1.1.1:81"], "2001:db8::1 port 80"), (["192.0.2.43:80"], "192.0.2.43 port 80"),
            (["::ffff:192.0.2.43"], "192.0.2.43"),
            (["unknown"], "unknown by 10.0.0.1"), (["1.1.1.1, unknown, 10.1.1.1"], "unknown by 10.1.1.1"), (["_x"], "_x by 10.0.0.1"),
            (["1.1.1.1, <script>, 10.1.1.1"], "10.1.1.1"), (["1.1.1.1, \", 10.1.1.1"], "10.1.1.1"), (["1.1.1.1,, ,10.1.1.1,"], "1.1.1.1"),
            (["host"], "10.0.0.1"), (["1.1.1.1:x"], "10.0.0.1"),
        ] as [([String], String)])
    func xForwarded(values: [String], expected: String) throws {
        var fields = try HTTPFields(["Forwarded": "for=9.9.9.9;proto=ftp"])
        for value in values { try fields.append("X-Forwarded-For", value) }
        #expect(try Self.found(fields, .xForwarded) == expected)
        #expect(try Self.found(fields, .xForwarded, peer: "2001:db8::1") == "2001:db8::1", "a peer that is not trusted")
    }

    @Test(
        "X-Forwarded-Proto and X-Forwarded-Host",
        arguments: [
            ("192.0.2.43, 10.1.1.1", "https", "h", "192.0.2.43 https h"),
            ("192.0.2.43, 10.1.1.1", "https, http", "a, b", "192.0.2.43 https a"),
            ("1.1.1.1, 192.0.2.43", "http, https", "a, b:80", "192.0.2.43 https b:80"),
            ("1.1.1.1, 192.0.2.43, 10.1.1.1", "https, http", "a", "192.0.2.43 http a"), ("192.0.2.43", "HTTPS", "", "192.0.2.43 https"),
            ("192.0.2.43", "not a scheme", "not/a host", "192.0.2.43"), ("", "https", "h", "10.0.0.1 https h"),
            ("bad", "https", "h", "10.0.0.1 https h"),
        ])
    func schemes(addresses: String, schemes: String, hosts: String, expected: String) throws {
        let fields = try HTTPFields(["X-Forwarded-For": addresses, "X-Forwarded-Proto": schemes, "X-Forwarded-Host": hosts])
        #expect(try Self.found(fields, .xForwarded) == expected)
    }

    @Test("long hostile fields are read in linear time")
    func hostile() throws {
        for text in [
            String(repeating: "\"", count: 60_000), String(repeating: "\\\"", count: 30_000), String(repeating: "\\", count: 60_000) + "\"",
        ] {
            let fields = try HTTPFields(["Forwarded": text + ",for=10.1.1.1", "X-Forwarded-For": text])
            #expect(try Self.found(fields, .forwarded) == "10.1.1.1")
            #expect(try Self.found(fields, .xForwarded) == "10.0.0.1")
        }
        let commas = try HTTPFields(["Forwarded": String(repeating: "for=10.1.1.1,", count: 5000) + "for=10.1.1.1"])
        #expect(try Self.found(commas, .forwarded) == "10.1.1.1")
    }
}
