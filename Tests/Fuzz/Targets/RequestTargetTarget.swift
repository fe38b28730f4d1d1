import ApusCodec

/// Request targets, and that no decoded path leaves the root.
enum RequestTargetTarget {
    private static let methods: [HTTPMethod] = [.get, .options, .connect, .head]

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let method = methods[Int(input.byte()) & 3]
        let raw = input.remaining()
        do throws(HTTPViolation) {
            let target = try RequestTarget(parsing: raw, method: method)
            checkPath(target, method: method)
            checkAgainstModel(target, raw)
            checkAgain(target)
            for (name, value) in target.query { require(name.utf8.count + value.utf8.count <= raw.count * 3) }
        } catch {
            guard case .targetMalformed(let fault) = error else { fatalError("\(error)") }
            require(error.status == .badRequest && !"\(fault)".isEmpty && !error.description.isEmpty)
        }
    }

    /// The path once more, escaped wherever that is possible: parsing it must give the same.
    private static func checkAgain(_ target: RequestTarget) {
        guard target.form == .origin || target.form == .absolute else { return }
        var escaped: [UInt8] = []
        for byte in target.path.utf8 {
            if byte == UInt8(ascii: "/") {
                escaped.append(byte)
            } else {
                let digits = String(byte, radix: 16)
                escaped += Array((digits.count == 1 ? "%0" : "%").utf8) + Array(digits.utf8)
            }
        }
        do throws(HTTPViolation) {
            let again = try RequestTarget(parsing: escaped)
            require(again.path == target.path, "an escaped path decodes to itself: \(again.path) for \(target.path)")
        } catch {
            fatalError("a decoded path can be escaped and parsed: \(error)")
        }
    }

    /// The path by a plainer way: unescape each segment, then keep a stack.
    private static func checkAgainstModel(_ target: RequestTarget, _ raw: [UInt8]) {
        guard target.form == .origin else { return }
        let path = raw.prefix { $0 != UInt8(ascii: "?") }
        var stack: [[UInt8]] = []
        let segments = path.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).dropFirst().map(unescaped)
        for (index, segment) in segments.enumerated() {
            let isLast = index == segments.count - 1
            if segment == Array("..".utf8) {
                require(stack.popLast() != nil, "a path above the root is refused")
                if isLast { stack.append([]) }
            } else if segment == Array(".".utf8) {
                if isLast { stack.append([]) }
            } else {
                stack.append(segment)
            }
        }
        let model = stack.map { "/" + String(decoding: $0, as: UTF8.self) }.joined()
        require(target.path == model, "\(target.path.debugDescription), the model says \(model.debugDescription)")
    }

    private static func unescaped(_ segment: ArraySlice<UInt8>) -> [UInt8] {
        var input = FuzzInput(Array(segment))
        var output: [UInt8] = []
        while !input.isEmpty {
            let byte = input.byte()
            guard byte == UInt8(ascii: "%") else {
                output.append(byte)
                continue
            }
            guard let value = UInt8(String(decoding: input.bytes(2), as: UTF8.self), radix: 16) else {
                fatalError("a bad escape is refused")
            }
            output.append(value)
        }
        return output
    }
}

/// No decoded path ever leaves `/`, whichever way it is split.
func checkPath(_ target: RequestTarget, method: HTTPMethod) {
    let path = target.path
    switch target.form {
    case .authority:
        require(method == .connect && path.isEmpty && target.segments.isEmpty && target.authority != nil)
        return
    case .asterisk:
        require(method == .options && path == "*" && target.segments.isEmpty)
        return
    case .origin: require(target.authority == nil)
    case .absolute: require(target.authority?.isEmpty == false)
    }
    let bytes = Array(path.utf8)
    require(bytes.first == UInt8(ascii: "/"), "a path starts with a slash: \(path.debugDescription)")
    require(!bytes.contains(0) && !bytes.contains(UInt8(ascii: "\\")), "no NUL, no backslash: \(path.debugDescription)")
    for segment in bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
        require(!segment.elementsEqual(".".utf8) && !segment.elementsEqual("..".utf8), "no dot segment: \(path.debugDescription)")
    }
    require(
        target.segments.map { "/" + $0 }.joined() == path.split(separator: "/").map { "/" + $0 }.joined()
            || bytes.contains { $0 >= 0x80 })
}
