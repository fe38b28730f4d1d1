import ApusCodec

/// What all head decoders have in common.
protocol HeadDecoder {
    associatedtype Head
    init(limits: HTTPHeadLimits)
    mutating func decode(_ bytes: Span<UInt8>, consumed: inout Int) throws(HTTPViolation) -> Head?
    var isIdle: Bool { get }
}

extension HTTPRequestDecoder: HeadDecoder {}
extension HTTPResponseDecoder: HeadDecoder {}

extension HeadDecoder {
    /// Decodes one head after the other; `describe` says what they hold.
    static func heads<Summary: Equatable>(
        _ bytes: [UInt8], _ cut: Cut, limits: HTTPHeadLimits, _ describe: (Head) -> Summary
    ) -> HeadsOutcome<Summary> {
        var decoder = Self(limits: limits)
        var outcome = HeadsOutcome<Summary>()
        var taken = 0
        do throws(HTTPViolation) {
            for piece in cut.pieces(of: bytes) {
                var position = 0
                while position < piece.count {
                    var consumed = 0
                    let head = try decoder.decode(piece.span.extracting(position..<piece.count), consumed: &consumed)
                    require(consumed > 0 || head != nil, "a decoder that has bytes takes some")
                    position += consumed
                    taken += consumed
                    if let head {
                        require(decoder.isIdle, "a complete head leaves nothing behind")
                        outcome.heads.append(describe(head))
                        outcome.ends.append(taken)
                    } else {
                        require(position == piece.count, "an incomplete head takes all bytes")
                    }
                }
            }
            outcome.isIdle = decoder.isIdle
        } catch {
            outcome.violation = error
        }
        return outcome
    }
}

struct HeadsOutcome<Summary: Equatable>: Equatable {
    var heads: [Summary] = []
    /// Where each head ended.
    var ends: [Int] = []
    var violation: HTTPViolation?
    var isIdle = false
}

/// The option byte's two lowest bits choose the limits.
func headLimits(_ option: UInt8) -> HTTPHeadLimits {
    option & 3 == 3 ? HTTPHeadLimits(maxHeadBytes: 200, maxTargetBytes: 40, maxFields: 6) : HTTPHeadLimits()
}

/// Larger than any head that the decoders under test let through, for what the encoder adds.
let ampleLimits = HTTPHeadLimits(maxHeadBytes: 1 << 20, maxTargetBytes: 1 << 20, maxFields: 1000)

/// Fields as pairs of strings and the invariants of decoded fields.
func pairs(_ fields: HTTPFields) -> [[String]] {
    var pairs: [[String]] = []
    for index in 0..<fields.count {
        let name = fields.name(at: index)
        require(HTTPMethod(rawValue: name).isToken, "a field name is a token: \(name.debugDescription)")
        let value = fields.valueBytes(at: index)
        for position in 0..<value.count {
            let byte = value[position]
            require(byte >= 0x20 && byte != 0x7F || byte == 0x09, "a value holds no control character")
        }
        if value.count > 0 {
            require(!isBlank(value[0]) && !isBlank(value[value.count - 1]), "a value is trimmed")
        }
        pairs.append([name, fields.value(at: index)])
    }
    require(pairs == fields.map { [$0.name, $0.value] }, "the sequence gives the same")
    return pairs
}

private func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

/// Fields without those that the encoder writes itself.
func withoutOwn(_ fields: HTTPFields, _ own: Set<String>) -> HTTPFields {
    var kept = HTTPFields()
    for field in fields where !own.contains(field.name.lowercased()) { kept.appendChecked(field.name, field.value) }
    return kept
}

/// What the encoder writes, in requests and responses.
let framingFields: Set<String> = ["connection", "keep-alive", "content-length", "transfer-encoding"]

enum RequestHeadTarget {
    private struct Summary: Equatable {
        var line: [String]
        var path: String
        var segments: [String]
        var query: [[String]]
        var fields: [[String]]
        var framing: HTTPBodyFraming
        var flags: [Bool]
        var host: String?
    }

    private static func summary(_ head: HTTPRequestHead) -> Summary {
        Summary(
            line: ["\(head.method)", head.target, "\(head.version)"], path: head.path, segments: head.requestTarget.segments,
            query: head.query.map { [$0.name, $0.value] }, fields: pairs(head.fields), framing: head.bodyFraming,
            flags: [head.keepsAlive, head.expectsContinue, head.wantsUpgradeToWebSocket], host: head.host)
    }

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        let wire = input.remaining()
        let limits = headLimits(option)
        let outcome = sameForAllCuts(seed: option) { cut in HTTPRequestDecoder.heads(wire, cut, limits: limits) { summary($0) } }
        var start = 0
        for end in outcome.ends {
            // One empty line may come before, and does not count.
            require(end - start <= limits.maxHeadBytes + 2, "a head keeps to the limit")
            start = end
        }
        if let violation = outcome.violation {
            require((400...505).contains(violation.status.code) && !violation.description.isEmpty)
        }
        _ = HTTPRequestDecoder.heads(wire, .whole, limits: limits) { head in
            check(head)
            return 0
        }
    }

    private static func check(_ head: HTTPRequestHead) {
        checkPath(head.requestTarget, method: head.method)
        let fields = head.fields
        let lengths = fields.count(of: "content-length")
        require(lengths <= 1, "one Content-Length")
        require(lengths == 0 || !fields.contains("transfer-encoding"), "not both framings")
        require(fields.count(of: "host") == 1 || head.version < .http11 && fields.count(of: "host") == 0, "one Host")
        if head.bodyFraming == .chunked {
            require(head.version >= .http11 && fields.containsToken("chunked", in: "transfer-encoding"))
        }
        roundTrip(head)
    }

    /// What was read can be written, and reads the same.
    private static func roundTrip(_ head: HTTPRequestHead) {
        guard let host = head.host else { return }
        let kept = withoutOwn(head.fields, framingFields.union(["host"]))
        var output: [UInt8] = []
        do {
            try HTTPEncoder.appendRequestHead(
                method: head.method, target: head.target, host: host, fields: kept, framing: head.bodyFraming,
                persistence: head.keepsAlive ? .keepAlive : .close, to: &output)
        } catch {
            fatalError("what was decoded can be encoded: \(error)")
        }
        var decoder = HTTPRequestDecoder(limits: ampleLimits)
        var consumed = 0
        do throws(HTTPViolation) {
            guard let again = try decoder.decode(output.span, consumed: &consumed) else {
                fatalError("an encoded head is complete")
            }
            require(consumed == output.count)
            require(again.method == head.method && again.target == head.target && again.path == head.path)
            require(again.bodyFraming == head.bodyFraming && again.keepsAlive == head.keepsAlive && again.host == head.host)
            require(withoutOwn(again.fields, framingFields.union(["host"])) == kept, "the same fields")
        } catch {
            fatalError("what was encoded can be decoded: \(error)\n\(String(decoding: output, as: UTF8.self))")
        }
    }
}

enum ResponseHeadTarget {
    private struct Summary: Equatable {
        var line: [String]
        var fields: [[String]]
        var framings: [HTTPBodyFraming]
        var keepsAlive: Bool
    }

    private static let methods: [HTTPMethod] = [.get, .head, .connect]

    private static func summary(_ head: HTTPResponseHead) -> Summary {
        Summary(
            line: ["\(head.version)", "\(head.status.code)", head.reason], fields: pairs(head.fields),
            framings: methods.map { head.bodyFraming(for: $0) }, keepsAlive: head.keepsAlive)
    }

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        let wire = input.remaining()
        let limits = headLimits(option)
        _ = sameForAllCuts(seed: option) { cut in HTTPResponseDecoder.heads(wire, cut, limits: limits) { summary($0) } }
        _ = HTTPResponseDecoder.heads(wire, .whole, limits: limits) { head in
            check(head, option)
            return 0
        }
    }

    /// What was read can be written, and reads the same.
    private static func check(_ head: HTTPResponseHead, _ option: UInt8) {
        require(head.bodyFraming(for: .head) == .none, "an answer to HEAD has no body")
        let kept = withoutOwn(head.fields, framingFields)
        var framing = head.bodyFraming(for: .get)
        if framing == .none, !head.status.forbidsContent { framing = .counted(0) }
        let date: [UInt8] = option & 4 == 0 ? [] : HTTPDate.format(secondsSince1970: 784_111_777)
        var output: [UInt8] = []
        HTTPEncoder.appendResponseHead(
            status: head.status, fields: kept, framing: framing, persistence: head.keepsAlive ? .implied : .close,
            date: date.span,
            to: &output)
        var decoder = HTTPResponseDecoder(limits: ampleLimits)
        var consumed = 0
        do throws(HTTPViolation) {
            guard let again = try decoder.decode(output.span, consumed: &consumed) else {
                fatalError("an encoded head is complete")
            }
            require(consumed == output.count && again.status == head.status && again.keepsAlive == head.keepsAlive)
            require(again.reason == head.status.reasonPhrase)
            let framingAgain = again.bodyFraming(for: .get)
            require(framingAgain == (framing == .counted(0) ? .none : framing), "the same framing")
            var expected = kept
            if option & 4 != 0, !kept.contains("date") { expected.appendChecked("Date", "Sun, 06 Nov 1994 08:49:37 GMT") }
            require(withoutOwn(again.fields, framingFields) == expected, "the same fields")
            require(again.fields.containsToken("upgrade", in: "connection") == kept.contains("upgrade"))
        } catch {
            fatalError("what was encoded can be decoded: \(error)\n\(String(decoding: output, as: UTF8.self))")
        }
    }
}
