import ApusCodec
import Testing
import TestSupport

@Suite("RFC 3629 incremental UTF-8 validation")
struct UTF8ValidatorTests {
    static func isValid(_ bytes: [UInt8]) -> Bool { String(validating: bytes, as: UTF8.self) != nil }

    /// Whether some continuation makes the bytes valid; tries every tail that may be needed.
    static func isRepairable(_ bytes: [UInt8]) -> Bool {
        if isValid(bytes) { return true }
        for first in [0x80, 0x90, 0xA0] as [UInt8] {
            for tail in [[first], [first, 0x80], [first, 0x80, 0x80]] where isValid(bytes + tail) { return true }
        }
        return false
    }

    /// The index of the first octet that no continuation can make valid; nil without one.
    static func firstBad(_ bytes: [UInt8]) -> Int? { bytes.indices.first { !isRepairable(Array(bytes[...$0])) } }

    /// The index of the piece at which the validator fails; `complete` if it does not.
    static func accept(_ pieces: [[UInt8]]) -> (failed: Int?, isComplete: Bool) {
        var validator = UTF8Validator()
        for (index, piece) in pieces.enumerated() where !validator.accept(piece.rawSpan) { return (index, false) }
        return (nil, validator.isComplete)
    }

    /// Compares the validator with the reference: whole, at every cut, byte by byte.
    static func check(_ bytes: [UInt8], _ note: String = "") {
        let isValid = isValid(bytes)
        let bad = firstBad(bytes)
        let whole = accept([bytes])
        let single = accept(bytes.map { [$0] })
        if (whole.failed == nil && whole.isComplete) != isValid { Issue.record("whole: \(bytes) \(note)") }
        if UTF8Validator.isValid(bytes.rawSpan) != isValid { Issue.record("isValid: \(bytes) \(note)") }
        if (whole.failed != nil) != (bad != nil) { Issue.record("fails at once: \(bytes) \(note)") }
        if single.failed != bad { Issue.record("byte by byte: \(bytes) failed at \(String(describing: single.failed)) \(note)") }
        if single.failed == nil, single.isComplete != isValid { Issue.record("byte by byte, end: \(bytes) \(note)") }
        for cut in bytes.indices.dropFirst() {
            let result = accept([Array(bytes[..<cut]), Array(bytes[cut...])])
            let expected = bad.map { $0 < cut ? 0 : 1 }
            if result.failed != expected { Issue.record("cut at \(cut): \(bytes) \(note)") }
            if result.failed == nil, result.isComplete != isValid { Issue.record("cut at \(cut), end: \(bytes) \(note)") }
        }
    }

    @Test("all sequences of one octet")
    func one() {
        for octet in UInt8.min...UInt8.max { Self.check([octet]) }
    }

    @Test("all sequences of two octets")
    func two() {
        for first in UInt8.min...UInt8.max {
            for second in UInt8.min...UInt8.max {
                let bytes = [first, second]
                let isValid = Self.isValid(bytes)
                let whole = Self.accept([bytes])
                let cut = Self.accept([[first], [second]])
                // With surrounding bytes, the same pair lies in a word of the fast path as well.
                let padded = Self.accept([[0x61, 0x61, first, second, 0x61, 0x61, 0x61, 0x61]])
                if (whole.failed == nil && whole.isComplete) != isValid { Issue.record("\(bytes)") }
                if (cut.failed == nil && cut.isComplete) != isValid { Issue.record("\(bytes), cut") }
                if (padded.failed == nil) != isValid { Issue.record("\(bytes), padded") }
            }
        }
    }

    @Test("all leads of three and four octets with all second octets", arguments: 0xE0...0xFF as ClosedRange<UInt8>)
    func leads(lead: UInt8) {
        let length = lead < 0xF0 ? 3 : 4
        for second in UInt8.min...UInt8.max {
            for last in [0x80, 0xBF] as [UInt8] {
                let bytes = [lead, second, last] + (length == 4 ? [last] : [])
                let isValid = Self.isValid(bytes)
                let bad = isValid ? nil : Self.firstBad(bytes)
                for pieces in [[bytes], bytes.map { [$0] }, [[0x61, 0x61] + bytes + [0x61, 0x61]]] {
                    let result = Self.accept(pieces)
                    if (result.failed == nil) != isValid { Issue.record("\(pieces)") }
                    if pieces.count == bytes.count, result.failed != bad { Issue.record("\(pieces) failed at \(result)") }
                }
            }
        }
    }

    @Test("scalar values at the edges of the encodings, and their neighbours")
    func edges() {
        for scalar: UInt32 in [
            0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x3FFFF, 0x40000, 0x10FFFF,
        ] {
            guard let character = Unicode.Scalar(scalar) else { continue }
            Self.check(Array(String(character).utf8), "U+\(String(scalar, radix: 16))")
        }
        let bad: [[UInt8]] = [
            [0xC0, 0x80], [0xC1, 0xBF], [0xE0, 0x80, 0x80], [0xE0, 0x9F, 0xBF], [0xF0, 0x80, 0x80, 0x80],
            [0xF0, 0x8F, 0xBF, 0xBF],
            [0xED, 0xA0, 0x80], [0xED, 0xBF, 0xBF], [0xED, 0xA0, 0xBD, 0xED, 0xB0, 0x80], [0xF4, 0x90, 0x80, 0x80],
            [0xF5, 0x80, 0x80, 0x80],
            [0xF8, 0x88, 0x80, 0x80, 0x80], [0xFC, 0x84, 0x80, 0x80, 0x80, 0x80], [0xFE], [0xFF], [0x80], [0xBF], [0xE2, 0x82],
            [0xF0, 0x9F, 0x90],
            [0xE2, 0x28, 0xA1], [0xF0, 0x28, 0x8C, 0xBC],
        ]
        for bytes in bad {
            #expect(!Self.isValid(bytes))
            Self.check(bytes)
            Self.check(Array("ab".utf8) + bytes + Array("cd".utf8))
        }
    }

    @Test(
        "valid and invalid sequences are distinguished at every position of blocks", arguments: ["a", "ü", "€", "🐦", "a€", "🐦 and ASCII, "])
    func inBlocks(filler: String) {
        let sequences: [[UInt8]] =
            [
                [0xC0, 0x80], [0xC1, 0xBF], [0xE0, 0x9F, 0xBF], [0xE0, 0xA0, 0x80], [0xF0, 0x8F, 0xBF, 0xBF], [0xF0, 0x90, 0x80, 0x80],
                [0xED, 0x9F, 0xBF], [0xED, 0xA0, 0x80], [0xEE, 0x80, 0x80], [0xF4, 0x8F, 0xBF, 0xBF], [0xF4, 0x90, 0x80, 0x80],
                [0xF5, 0x80, 0x80, 0x80], [0xFF], [0x80], [0xC3], [0xE2, 0x82], [0xF0, 0x9F, 0x90], [0xC3, 0xA9, 0xA9],
                [0xE2, 0x82, 0xAC, 0xAC], [0xF0, 0x9F, 0x90, 0xA6, 0xA6], [0xC3, 0xC3, 0xA9], [0xE2, 0xC3, 0xA9], [0xF0, 0x9F, 0xC3, 0xA9],
            ]
        let around = Array(String(repeating: filler, count: 200 / filler.utf8.count + 1).utf8)
        for sequence in sequences {
            for place in 0..<100 where around[place] & 0xC0 != 0x80 {
                let bytes = around[..<place] + sequence + around[place...]
                let isValid = Self.isValid(Array(bytes))
                let whole = Self.accept([Array(bytes)])
                if (whole.failed == nil && whole.isComplete) != isValid { Issue.record("\(sequence) at \(place)") }
                // Cut inside an incomplete block, and with another phase.
                let pieces = [Array(bytes[..<70]), Array(bytes[70...])]
                let cut = Self.accept(pieces)
                if (cut.failed == nil && cut.isComplete) != isValid { Issue.record("\(sequence) at \(place), cut") }
                if place < 60, !Self.isRepairable(pieces[0]) != (cut.failed == 0) { Issue.record("\(sequence) at \(place), at once") }
            }
        }
    }

    @Test("an invalid octet is found at every position of long ASCII text", arguments: [0x80, 0xC0, 0xFF, 0xC3, 0xE2, 0xF0] as [UInt8])
    func inASCII(bad: UInt8) {
        let ascii = [UInt8](repeating: 0x61, count: 130)
        for position in ascii.indices {
            var bytes = ascii
            bytes[position] = bad
            // A lead at the end is incomplete, not invalid.
            let isLead = bad >= 0xC2 && bad < 0xF5
            let result = Self.accept([bytes])
            #expect((result.failed == nil) == (isLead && position == ascii.count - 1), "at \(position)")
            #expect(!result.isComplete)
            for count in 1...position + 1 {
                // The fast path for 8 to 64 octets, with the invalid one at the end and in the
                // middle.
                let part = Array(bytes[position + 1 - count...position])
                let middle = part + ascii[..<(count % 9)]
                if UTF8Validator.isValid(part.rawSpan) || UTF8Validator.isValid(middle.rawSpan) {
                    Issue.record("\(count) octets up to \(position)")
                }
                let good = Array(ascii[..<count])
                if !UTF8Validator.isValid(good.rawSpan) { Issue.record("\(count) octets of ASCII") }
            }
            let atOnce = Self.accept([Array(bytes[...position]), Array(bytes[(position + 1)...])])
            #expect(atOnce.failed == (isLead ? (position == ascii.count - 1 ? nil : 1) : 0), "at \(position)")
        }
    }

    @Test("mixed text is valid at every cut")
    func mixed() {
        let text =
            "Γαζίες καὶ μυρτιὲς δὲν θὰ βρῶ πιὰ στὸ χρυσαφὶ ξέφωτο — いろはにほへと 🐦🇩🇪👩‍👩‍👧 plain ASCII for a good while, more than 32 octets, и русский 한국어 \u{10FFFF}"
        Self.check(Array(text.utf8))
    }

    @Test("random mixtures are validated as by the standard library", arguments: 1...30 as ClosedRange<UInt64>)
    func random(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let parts = ["a", "plain text of some length, ", "ü", "€", "🐦", "\u{800}", "\u{FFFF}", "\u{10000}"].map { Array($0.utf8) }
        for _ in 0..<40 {
            var bytes: [UInt8] = []
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                bytes += parts[Int.random(in: 0..<parts.count, using: &generator)]
            }
            for _ in 0..<Int.random(in: 0...2, using: &generator) where !bytes.isEmpty {
                let position = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: bytes[position] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.remove(at: position)
                default: bytes.insert(UInt8.random(in: 0x80...255, using: &generator), at: position)
                }
            }
            Self.check(bytes, "seed \(seed)")
        }
    }

    @Test("an empty piece is complete text, and does not change the state")
    func empty() {
        var validator = UTF8Validator()
        // Each step: the piece, and whether the text may end after it.
        for (bytes, isComplete) in [([], true), ([0xE2, 0x82], false), ([], false), ([0xAC], true), ([], true)]
            as [([UInt8], Bool)]
        {
            let before = validator
            let accepted = validator.accept(bytes.rawSpan)
            #expect(accepted)
            #expect(validator.isComplete == isComplete)
            if bytes.isEmpty { #expect(validator == before) }
        }
        #expect(validator == UTF8Validator())
    }
}
