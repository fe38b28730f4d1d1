import ApusCodec
import Testing

@Suite("RFC 6455 §7.4 close codes")
struct CloseCodeTests {
    @Test(
        "only registered and private codes may be sent",
        arguments: [
            (0, false), (999, false), (1000, true), (1003, true), (1004, false), (1005, false), (1006, false), (1007, true),
            (1011, true), (1014, true), (1015, false), (1016, false), (2999, false), (3000, true), (4999, true), (5000, false),
            (65535, false),
        ])
    func mayBeSent(raw: Int, expected: Bool) {
        #expect(CloseCode(rawValue: UInt16(raw)).mayBeSent == expected)
    }
}
