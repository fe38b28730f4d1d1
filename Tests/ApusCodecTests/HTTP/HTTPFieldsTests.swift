import ApusCodec
import Testing

@Suite("RFC 9110 §5 fields")
struct FieldTests {
    @Test("fields are kept in order and found without regard to case")
    func lookup() throws {
        var fields = try HTTPFields(["Accept": "a", "Set-Cookie": "x=1", "ACCEPT": "b", "Empty": ""])
        #expect(fields["accept"] == "a, b")
        #expect(fields["empty"]?.isEmpty == true)
        #expect(fields["none"] == nil)
        #expect(fields.values(of: "AccepT") == ["a", "b"])
        #expect(fields.contains("set-cookie") && !fields.contains("cookie"))
        #expect(fields.count(of: "accept") == 2)
        try fields.set("accept", "c")
        #expect(fields.map { "\($0.name)=\($0.value)" } == ["accept=c", "Set-Cookie=x=1", "Empty="])
        fields.remove("SET-COOKIE")
        try fields.set("New", "d")
        #expect(fields == (try HTTPFields(["ACCEPT": "c", "empty": "", "new": " d\t"])))
        #expect(fields != (try HTTPFields(["ACCEPT": "C", "empty": "", "new": "d"])))
    }

    @Test(
        "a token is found in a list",
        arguments: [
            ("keep-alive, UPGRADE", true), ("upgrade", true), (" ,\tUpgrade ,", true), ("upgraded", false), ("x upgrade", false),
            ("", false),
        ])
    func token(value: String, expected: Bool) throws {
        #expect(try HTTPFields(["Connection": "x", "connection": value]).containsToken("Upgrade", in: "connection") == expected)
    }

    @Test("an invalid name is refused", arguments: ["", "a b", "a:", "a\r\n", "ä", "a\0", "(a)"])
    func badName(name: String) {
        var fields = HTTPFields()
        #expect(throws: HTTPFieldError.invalidName(name)) { try fields.append(name, "x") }
        #expect(throws: HTTPFieldError.invalidName(name)) { try fields.set(name, "x") }
        #expect(fields.isEmpty)
    }

    @Test(
        "an invalid value is refused",
        arguments: [("a\r\nB: c", 13), ("a\n", 10), ("\0", 0), ("\u{7F}", 127), ("a\u{1B}", 27)] as [(String, UInt8)])
    func badValue(value: String, byte: UInt8) {
        var fields = HTTPFields()
        #expect(throws: HTTPFieldError.invalidValue(name: "A", byte: byte)) { try fields.append("A", value) }
        #expect(throws: HTTPFieldError.invalidValue(name: "A", byte: byte)) { try fields.set("A", value) }
        #expect(fields.isEmpty)
    }

    @Test("fields of a decoded head can be changed in a copy")
    func copy() throws {
        let head = try HTTPRequestDecoder.head("GET /abc HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n")
        var fields = head.fields
        try fields.set("B", "d")
        try fields.append("E", "f")
        #expect(fields == (try HTTPFields(["Host": "a", "B": "d", "E": "f"])))
        #expect(head.fields["b"] == "c" && head.target == "/abc")
    }
}
