import ApusCodec

/// Bodies of every framing.
enum ChunkedBodyTarget {
    private struct Outcome: Equatable {
        var content: [UInt8] = []
        /// Bytes taken when the body was complete.
        var end: Int?
        var violation: HTTPViolation?
        var finishes = false
    }

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        let maxBytes = option & 0x10 == 0 ? 1 << 20 : 16
        let framing: HTTPBodyFraming =
            switch option >> 5 {
            case 0...4: .chunked
            case 5: .counted(input.number(below: 1 << 16))
            case 6: .untilClose
            default: .none
            }
        let wire = input.remaining()
        let outcome = sameForAllCuts(seed: option) { cut in
            var outcome = decode(wire, framing, maxBytes: maxBytes, cut)
            // Without chunks a piece that passes the limit gives no content, however much of it would have been within.
            if outcome.violation != nil, framing != .chunked { outcome.content = [] }
            return outcome
        }
        require(outcome.content.count <= maxBytes, "content keeps to the limit")
        if let violation = outcome.violation {
            require([400, 413, 431].contains(violation.status.code), "\(violation)")
        } else if outcome.end != nil {
            require(outcome.finishes, "a complete body may end")
            roundTrip(outcome.content, option)
        }
    }

    private static func decode(_ bytes: [UInt8], _ framing: HTTPBodyFraming, maxBytes: Int, _ cut: Cut) -> Outcome {
        var decoder = HTTPBodyDecoder(framing: framing, maxBytes: maxBytes)
        var outcome = Outcome()
        var taken = 0
        do throws(HTTPViolation) {
            // A body without content is complete before anything arrives.
            for piece in [[]] + cut.pieces(of: bytes) where outcome.end == nil {
                var offset = 0
                while let event = try decoder.next(piece.span, from: &offset) {
                    switch event {
                    case .data(let range):
                        require(
                            !range.isEmpty && range.upperBound == offset, "content is not empty and ends where decoding goes on")
                        outcome.content += piece[range]
                    case .end:
                        require(outcome.end == nil, "one end")
                        outcome.end = taken + offset
                    }
                }
                require(decoder.isComplete || offset == piece.count, "all bytes are used")
                taken += offset
            }
            require(decoder.isComplete == (outcome.end != nil))
        } catch {
            outcome.violation = error
            return outcome
        }
        outcome.finishes = (try? decoder.finish()) != nil
        require(outcome.finishes == (outcome.end != nil || framing == .untilClose), "only a complete body may end")
        return outcome
    }

    /// The same content in chunks of our own.
    private static func roundTrip(_ content: [UInt8], _ option: UInt8) {
        var wire: [UInt8] = []
        for piece in Cut.random(seed: UInt64(option)).pieces(of: content) { HTTPEncoder.appendChunk(piece.span, to: &wire) }
        HTTPEncoder.appendLastChunk(to: &wire)
        let again = decode(wire, .chunked, maxBytes: content.count, .whole)
        require(again.violation == nil && again.end == wire.count && again.content == content, "chunks of our own read the same")
    }
}
