import Testing

@testable import ApusCommand

@Suite("Decimal numbers")
struct DecimalTests {
    @Test(
        "a number is rounded to the requested digits",
        arguments: [
            (0.0, 0, "0"), (0, 3, "0.000"), (1.5, 0, "2"), (0.04, 1, "0.0"), (0.05, 1, "0.1"), (9.999, 2, "10.00"), (0.0625, 3, "0.063"),
            (12345678.9, 1, "12345678.9"), (-0.5, 1, "-0.5"), (-0.01, 1, "0.0"), (1e300, 2, "1e+300"), (.infinity, 1, "inf"),
            (.nan, 1, "nan"),
        ] as [(Double, Int, String)])
    func places(value: Double, places: Int, expected: String) { #expect(Decimal.text(value, places: places) == expected) }

    @Test(
        "trailing zeros are left out",
        arguments: [(0.0, "0"), (100, "100"), (50, "50"), (100.0 / 3, "33.3333"), (12.5, "12.5"), (0.0001, "0.0001")] as [(Double, String)])
    func shortest(value: Double, expected: String) { #expect(Decimal.shortest(value, places: 4) == expected) }

    @Test("a byte has two digits", arguments: [(0, "00"), (15, "0f"), (16, "10"), (255, "ff")] as [(UInt8, String)])
    func hexadecimal(byte: UInt8, expected: String) { #expect(Decimal.hexadecimal(byte) == expected) }
}
