import ApusCodec

/// The list of fields as the application edits it, against a plain model; and dates.
enum FieldsTarget {
    private static let names = ["Host", "host", "Accept", "X-A", "x-a", "Connection", "", "a b", "A:", "Sec-WebSocket-Key"]

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        if option & 1 == 1 { return checkDate(input.remaining(), currentYear: 1970 + Int(option)) }
        var fields = HTTPFields()
        var model: [(name: String, value: String)] = []
        while !input.isEmpty {
            let operation = input.byte()
            let name = operation & 0x80 == 0 ? names[Int(operation >> 3) % names.count] : string(&input)
            switch operation & 7 {
            case 0...3: append(name, string(&input), &fields, &model)
            case 4, 5: set(name, string(&input), &fields, &model)
            case 6:
                fields.remove(name)
                model.removeAll { matches($0.name, name) }
            default: lookUp(name, string(&input), fields, model)
            }
            require(fields.count == model.count && fields.isEmpty == model.isEmpty && fields.underestimatedCount == model.count)
        }
        require(zip(fields, model).allSatisfy { $0.name == $1.name && $0.value == $1.value }, "the same fields as the model's")
        var copy = HTTPFields()
        for (name, value) in model { copy.appendChecked(name.lowercased(), value) }
        require(
            copy == fields || model.contains { $0.name.lowercased().utf8.count != $0.name.utf8.count },
            "equal whatever the case of names")
        copy.appendChecked("one", "more")
        require(copy != fields)
    }

    private static func string(_ input: inout FuzzInput) -> String { String(decoding: input.bytes(upTo: 0xFF), as: UTF8.self) }

    private static func matches(_ left: String, _ right: String) -> Bool {
        left.utf8.elementsEqual(right.utf8) { lowercase($0) == lowercase($1) }
    }

    private static func lowercase(_ byte: UInt8) -> UInt8 { (0x41...0x5A).contains(byte) ? byte + 32 : byte }

    private static func trimmed(_ value: String) -> String {
        let isBlank: (UInt8) -> Bool = { $0 == 0x20 || $0 == 0x09 }
        var bytes = Array(value.utf8)[...]
        while let first = bytes.first, isBlank(first) { bytes.removeFirst() }
        while let last = bytes.last, isBlank(last) { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Whether the library may take the two.
    private static func areValid(_ name: String, _ value: String) -> Bool {
        let separators = Set("()<>@,;:\\\"/[]?={} \t".utf8)
        let isToken = !name.isEmpty && name.utf8.allSatisfy { (0x21...0x7E).contains($0) && !separators.contains($0) }
        return isToken && value.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }
    }

    private static func append(
        _ name: String, _ value: String, _ fields: inout HTTPFields, _ model: inout [(name: String, value: String)]
    ) {
        do {
            try fields.append(name, value)
            require(areValid(name, value), "\(name.debugDescription): \(value.debugDescription) must be refused")
            model.append((name, trimmed(value)))
        } catch {
            require(
                !areValid(name, value) && !error.description.isEmpty,
                "\(name.debugDescription): \(value.debugDescription) is fine")
        }
    }

    private static func set(
        _ name: String, _ value: String, _ fields: inout HTTPFields, _ model: inout [(name: String, value: String)]
    ) {
        do {
            try fields.set(name, value)
            require(areValid(name, value), "\(name.debugDescription): \(value.debugDescription) must be refused")
            let first = model.firstIndex { matches($0.name, name) }
            model.removeAll { matches($0.name, name) }
            model.insert((name, trimmed(value)), at: first ?? model.count)
        } catch {
            require(!areValid(name, value), "\(name.debugDescription): \(value.debugDescription) is fine")
        }
    }

    private static func lookUp(_ name: String, _ token: String, _ fields: HTTPFields, _ model: [(name: String, value: String)]) {
        let values = model.filter { matches($0.name, name) }.map(\.value)
        require(fields.values(of: name) == values && fields.contains(name) == !values.isEmpty)
        require(fields[name] == (values.isEmpty ? nil : values.joined(separator: ", ")), "several values are joined")
        guard token.utf8.allSatisfy({ $0 < 0x80 && $0 != 0x2C }), token == trimmed(token) else { return }
        let isListed = values.contains { value in
            value.utf8.split(separator: 0x2C, omittingEmptySubsequences: false).contains {
                matches(trimmed(String(Substring($0))), token)
            }
        }
        require(fields.containsToken(token, in: name) == isListed, "\(token.debugDescription) in \(values)")
    }

    private static func checkDate(_ bytes: [UInt8], currentYear: Int) {
        let text = String(decoding: bytes, as: UTF8.self)
        guard let seconds = HTTPDate.parse(text, currentYear: currentYear) else { return }
        let formatted = HTTPDate.format(secondsSince1970: seconds)
        require(formatted.count == 29)
        require(HTTPDate.parse(String(decoding: formatted, as: UTF8.self)) == seconds, "a date reads as it was written")
        require(HTTPDate.formatTimestamp(secondsSince1970: seconds).utf8.count == 19)
        if text.utf8.count == 29, text.utf8.last == UInt8(ascii: "T"), bytes[17...24].suffix(2) != Array("60".utf8)[...] {
            require(formatted[4...] == bytes[4...], "\(text) became \(String(decoding: formatted, as: UTF8.self))")
        }
    }
}
