import ApusCodec

/// The UTF-8 validator against Swift's own, whole and in pieces, and that it fails at the first byte that cannot be repaired.
enum UTF8Target {
    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        let text = input.remaining()
        let isValid = String(validating: text, as: UTF8.self) != nil
        require(UTF8Validator.isValid(text.rawSpan) == isValid, "whole")
        for cut in Cut.all(seed: option) {
            var validator = UTF8Validator()
            let accepted = cut.pieces(of: text).allSatisfy { validator.accept($0.rawSpan) }
            require((accepted && validator.isComplete) == isValid, "cut \(cut)")
        }
        guard let failure = firstFailure(text) else {
            require(canBeCompleted(text[...]), "what was accepted can be completed")
            return
        }
        require(canBeCompleted(text[..<failure]), "no byte before \(failure) was beyond repair")
        require(!canBeCompleted(text[...failure]), "byte \(failure) is beyond repair")
        // In one piece the failure is seen too, whatever follows.
        var validator = UTF8Validator()
        require(!validator.accept(text.rawSpan))
    }

    private static func firstFailure(_ text: [UInt8]) -> Int? {
        var validator = UTF8Validator()
        for (index, byte) in text.enumerated() where !validator.accept([byte].rawSpan) { return index }
        return nil
    }

    /// Whether some continuation makes valid text of it: E0 and F0 want high continuations, ED and F4 low ones.
    private static func canBeCompleted(_ text: ArraySlice<UInt8>) -> Bool {
        let endings: [[UInt8]] = [[], [0x80], [0xBF], [0x80, 0x80], [0xBF, 0x80], [0x80, 0x80, 0x80], [0xBF, 0x80, 0x80]]
        return endings.contains { String(validating: text + $0, as: UTF8.self) != nil }
    }
}
