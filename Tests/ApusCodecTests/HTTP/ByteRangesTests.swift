import ApusCodec
import TestSupport
import Testing

@Suite("RFC 9110 §14: several ranges")
struct ByteRangesTests {
    @Test(
        "ranges of 10,000 bytes",
        arguments: [
            (nil, .whole), ("bytes=0-499", .part(0..<500)), ("bytes=500-", .part(500..<10_000)), ("bytes=-500", .part(9500..<10_000)),
            ("Bytes=0-9, 5000-5009 ,-10", .parts([0..<10, 5000..<5010, 9990..<10_000])),
            // The examples of §14.1.2, with the first and the last byte.
            ("bytes=0-0,-1", .parts([0..<1, 9999..<10_000])), ("bytes=500-600,601-999", .part(500..<1000)),
            ("bytes=500-700,601-999", .part(500..<1000)),
            ("bytes= 0-999, 4500-5499, -1000", .parts([0..<1000, 4500..<5500, 9000..<10_000])),
            // In the order of the request; joined ranges are at the place of the first.
            ("bytes=9000-9009,0-9", .parts([9000..<9010, 0..<10])), ("bytes=5000-5009,0-9,5020-5029", .parts([5000..<5030, 0..<10])),
            ("bytes=9000-,0-9,8995-8999", .parts([8995..<10_000, 0..<10])),
            // A gap of 79 bytes is sent, one of 80 is not.
            ("bytes=0-9,89-99", .part(0..<100)), ("bytes=0-9,90-99", .parts([0..<10, 90..<100])),
            // Ranges without bytes are left out.
            ("bytes=0-9,10000-", .part(0..<10)), ("bytes=20000-30000,0-9,500-509,-0", .parts([0..<10, 500..<510])),
            ("bytes=10000-,10001-", .unsatisfiable), ("bytes=-0,-0", .unsatisfiable), ("bytes=99999999999999999999-,-0", .unsatisfiable),
            ("bytes=0-9,9000-99999999999999999999", .parts([0..<10, 9000..<10_000])),
            // What costs more than the whole: more than two overlapping ranges, or their heads.
            ("bytes=0-,0-,0-", .whole), ("bytes=0-100,50-150,140-200", .whole), ("bytes=0-,0-", .part(0..<10_000)),
            ("bytes=0-4999,5080-", .whole),
            ("bytes=0-4000,5080-", .parts([0..<4001, 5080..<10_000])), ("bytes=-99999999999999999999,0-1", .part(0..<10_000)),
            // Malformed: ignored.
            ("bytes=0-9,9-5", .whole), ("bytes=0-9,x", .whole), ("bytes=0-9,-", .whole), ("bytes=0-9,1-2-3", .whole),
            ("bytes=0-9,5", .whole),
            ("bytes=", .whole), ("bytes=,", .whole), ("items=0-9,20-29", .whole), ("0-9", .whole), ("bytes =0-9", .whole),
            ("bytes=0-9;20-29", .whole),
            ("bytes=0-9,+5-6", .whole), ("bytes=0-9,٣-٤", .whole), ("bytes=,0-9,,", .part(0..<10)),
            ("bytes=0-9,5-18446744073709551616-", .whole),
        ] as [(String?, ByteRanges)])
    func tenThousand(field: String?, expected: ByteRanges) { #expect(ByteRanges(field, of: 10_000) == expected) }

    @Test(
        "ranges of 10 bytes",
        arguments: [
            (nil, .whole), ("bytes=0-9", .part(0..<10)), ("bytes=0-0", .part(0..<1)), ("bytes=9-", .part(9..<10)),
            ("bytes=2-5", .part(2..<6)), ("bytes=5-100", .part(5..<10)), ("bytes=-3", .part(7..<10)), ("bytes=-100", .part(0..<10)),
            ("BYTES = 1-2", .whole), ("Bytes=1 - 2", .part(1..<3)), ("bytes=10-", .unsatisfiable), ("bytes=10-20", .unsatisfiable),
            ("bytes=-0", .unsatisfiable), ("bytes=99999999999999999999-", .unsatisfiable),
            ("bytes=0-99999999999999999999", .part(0..<10)), ("bytes=-99999999999999999999", .part(0..<10)),
            ("bytes=9223372036854775807-9223372036854775807", .unsatisfiable),
            // Malformed, or with another unit: ignored.
            ("bytes=5-2", .whole), ("bytes=", .whole), ("bytes=-", .whole), ("bytes=a-b", .whole), ("bytes=1", .whole),
            ("bytes=+1-2", .whole), ("items=0-1", .whole), ("0-1", .whole), ("bytes=0-1-2", .whole), ("bytes=٣-٤", .whole),
            ("bytes=15-12", .whole),
            // Empty list elements are ignored.
            ("bytes=,0-4", .part(0..<5)), ("bytes=0-4, ,", .part(0..<5)), ("bytes=,", .whole),
        ] as [(String?, ByteRanges)])
    func ten(field: String?, range: ByteRanges) { #expect(ByteRanges(field, of: 10) == range) }

    @Test("ranges of an empty representation")
    func nothing() {
        #expect(ByteRanges("bytes=0-", of: 0) == .unsatisfiable)
        #expect(ByteRanges("bytes=-1", of: 0) == .whole, "§14.1.2: the whole, which is shorter than the suffix")
        #expect(ByteRanges("bytes=-0", of: 0) == .unsatisfiable)
        #expect(ByteRanges(nil, of: 0) == .whole)
    }

    @Test("more ranges than the limit are answered with the whole")
    func limit() {
        let list = (0..<17).map { "\($0 * 1000)-\($0 * 1000)" }
        #expect(ByteRanges("bytes=" + list.joined(separator: ","), of: 100_000) == .whole)
        let sixteen = "bytes=" + list.dropLast().joined(separator: ",")
        #expect(ByteRanges(sixteen, of: 100_000) == .parts((0..<16).map { $0 * 1000..<$0 * 1000 + 1 }))
        #expect(ByteRanges(sixteen, of: 100_000, maxRanges: 15) == .whole)
        #expect(ByteRanges("bytes=" + String(repeating: "0-0,", count: 5000), of: 100_000) == .whole)
        #expect(ByteRanges("bytes=" + String(repeating: ",", count: 16_000) + "0-0", of: 100_000) == .part(0..<1))
    }

    @Test(
        "random ranges give parts that were requested, do not overlap, and are smaller than the whole", arguments: 0..<10 as Range<UInt64>)
    func random(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let count = Int.random(in: 0...2000, using: &generator)
            let list = (0..<Int.random(in: 1...6, using: &generator)).map { _ in
                let first = Int.random(in: 0...2500, using: &generator)
                return ["\(first)-\(first + Int.random(in: 0...50, using: &generator))", "\(first)-", "-\(first)"].randomElement(
                    using: &generator) ?? ""
            }
            guard case .parts(let parts) = ByteRanges("bytes=" + list.joined(separator: ","), of: count) else { continue }
            #expect(parts.count > 1)
            #expect(parts.reduce(0) { $0 + $1.count } < count)
            let sorted = parts.sorted { $0.lowerBound < $1.lowerBound }
            for (left, right) in zip(sorted, sorted.dropFirst()) {
                #expect(left.upperBound + 80 <= right.lowerBound, "\(list) of \(count)")
            }
            #expect(sorted.allSatisfy { !$0.isEmpty && $0.lowerBound >= 0 && $0.upperBound <= count })
        }
    }

    @Test("the framing of §15.3.7.2's example")
    func framing() throws {
        let boundary = try MultipartBoundary("THIS_STRING_SEPARATES")
        let framing = ByteRangesBody([500..<1000, 7000..<8000], of: 8000, contentType: "application/pdf", boundary: boundary)
        #expect(framing.contentType == "multipart/byteranges; boundary=THIS_STRING_SEPARATES")
        var body = [UInt8]()
        for (index, part) in framing.parts.enumerated() {
            body += framing.head(of: index)
            body += [UInt8](repeating: 0x61, count: part.count)
        }
        body += framing.end
        let expected =
            "\r\n--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n"
            + String(repeating: "a", count: 500)
            + "\r\n--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n"
            + String(repeating: "a", count: 1000) + "\r\n--THIS_STRING_SEPARATES--\r\n"
        #expect(String(decoding: body, as: UTF8.self) == expected)
        #expect(framing.totalBytes == body.count)
    }

    @Test("a boundary that is not a token is quoted, and a type is optional")
    func quoted() throws {
        let framing = ByteRangesBody([0..<1, 99..<100], of: 100, contentType: nil, boundary: try MultipartBoundary("a b"))
        #expect(framing.contentType == "multipart/byteranges; boundary=\"a b\"")
        #expect(String(decoding: framing.head(of: 0), as: UTF8.self) == "\r\n--a b\r\nContent-Range: bytes 0-0/100\r\n\r\n")
    }
}
