import ApusCodec
import Testing
import TestSupport

@Suite("Mutated messages")
struct MutationTests {
    static let dictionary = [
        "\r\n", "\n", "\r", "\0", " ", "\t", ":", ",", "%", "%2e", "%2f", "/../", "\\", "?", "#", "Host: b\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n", "http://a", "HTTP/1.0", "\u{7F}", "ä", "0", "ffffffffffffffff", ";", "-",
    ].map { Array($0.utf8) }

    static func mutate(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
            let position = Int.random(in: 0...bytes.count, using: &generator)
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: bytes.insert(contentsOf: dictionary[Int.random(in: 0..<dictionary.count, using: &generator)], at: position)
            case 1 where position < bytes.count: bytes.remove(at: position)
            case 2 where position < bytes.count: bytes[position] = UInt8.random(in: 0...255, using: &generator)
            default: bytes.removeSubrange(position..<min(bytes.count, position + Int.random(in: 0...8, using: &generator)))
            }
        }
        return bytes
    }

    /// What a head decoder makes of bytes that come in pieces: fields, bytes taken, violation.
    static func outcome(_ bytes: [UInt8], piece: Int) -> String {
        var decoder = HTTPRequestDecoder(limits: HTTPHeadLimits(maxHeadBytes: 200, maxTargetBytes: 40, maxFields: 6))
        var taken = 0
        do throws(HTTPViolation) {
            while taken < bytes.count {
                var consumed = 0
                let head = try decoder.decode(Array(bytes[taken..<min(bytes.count, taken + piece)]).span, consumed: &consumed)
                taken += consumed
                if let head {
                    return "\(head.method) \(head.path) \(head.query) \(Array(head.fields)) \(head.bodyFraming) after \(taken)"
                }
            }
            return "wants more"
        } catch {
            return "\(error)"
        }
    }

    static func bodyOutcome(_ bytes: [UInt8], piece: Int) -> String {
        var decoder = HTTPBodyDecoder(framing: .chunked, maxBytes: 1000)
        var content: [UInt8] = []
        var taken = 0
        do throws(HTTPViolation) {
            while taken < bytes.count {
                let part = Array(bytes[taken..<min(bytes.count, taken + piece)])
                var offset = 0
                while let event = try decoder.next(part.span, from: &offset) {
                    switch event {
                    case .data(let range): content += part[range]
                    case .end: return "\(content) after \(taken + offset)"
                    }
                }
                taken += offset
            }
            return "\(content), wants more"
        } catch {
            return "\(content), \(error)"
        }
    }

    @Test("the outcome does not depend on how a request is cut", arguments: [1, 2, 3] as [UInt64])
    func requests(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let request = Array(
            "POST /a/./b?c=d HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nContent-Length: 10\r\nA: b c\r\n\r\n".utf8)
        for _ in 0..<700 {
            let bytes = Self.mutate(request, &generator)
            let whole = Self.outcome(bytes, piece: bytes.count)
            for piece in [1, 2, 7] { #expect(Self.outcome(bytes, piece: piece) == whole, "seed \(seed): \(bytes)") }
        }
    }

    @Test("the outcome does not depend on how a chunked body is cut", arguments: [4, 5, 6] as [UInt64])
    func bodies(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let body = Array("4\r\nWiki\r\n7;a=b\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0\r\nA: b\r\n\r\n".utf8)
        for _ in 0..<700 {
            let bytes = Self.mutate(body, &generator)
            let whole = Self.bodyOutcome(bytes, piece: bytes.count)
            for piece in [1, 2, 7] { #expect(Self.bodyOutcome(bytes, piece: piece) == whole, "seed \(seed): \(bytes)") }
        }
    }
}
