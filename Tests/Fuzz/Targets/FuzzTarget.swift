import Synchronization
import TestSupport

/// The bodies of the fuzz targets. A target takes any bytes and checks what must hold for them: not only that nothing traps, but that
/// cutting the input changes nothing, that what is accepted can be written and read again, that limits are kept.
///
/// They are a plain module, so that `Tests/Fuzz/Driver` runs them under libFuzzer and `Tests/Fuzz/Replay` runs the corpus through them in
/// every `swift test`. The first byte of most inputs chooses options and the seed of the cuts; the rest is as it would be on the wire.
package enum FuzzTarget: String, CaseIterable, Sendable, CustomStringConvertible {
    case requestHead = "request-head"
    case responseHead = "response-head"
    case chunkedBody = "chunked-body"
    case target
    case fields
    case frames
    case utf8
    case handshake
    case permessageDeflate = "permessage-deflate"
    case extensionOffers = "extension-offers"
    case packet
    case connection

    package var description: String { rawValue }

    /// Targets keep some state between inputs, and tests run in parallel.
    private static let turn = Mutex(())

    /// Runs one input; traps when something does not hold.
    package func run(_ input: [UInt8]) { Self.turn.withLock { _ in runAlone(input) } }

    private func runAlone(_ input: [UInt8]) {
        switch self {
        case .requestHead: RequestHeadTarget.run(input)
        case .responseHead: ResponseHeadTarget.run(input)
        case .chunkedBody: ChunkedBodyTarget.run(input)
        case .target: RequestTargetTarget.run(input)
        case .fields: FieldsTarget.run(input)
        case .frames: FramesTarget.run(input)
        case .utf8: UTF8Target.run(input)
        case .handshake: HandshakeTarget.run(input)
        case .permessageDeflate: PerMessageDeflateTarget.run(input)
        case .extensionOffers: ExtensionOffersTarget.run(input)
        case .packet: PacketTarget.run(input)
        case .connection: ConnectionTarget.run(input)
        }
    }
}

/// Reads an input from its front; behind its end come zeros.
package struct FuzzInput {
    package private(set) var rest: ArraySlice<UInt8>

    package init(_ bytes: [UInt8]) { rest = bytes[...] }

    package var isEmpty: Bool { rest.isEmpty }

    package mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

    /// A number below `bound`.
    package mutating func number(below bound: Int) -> Int {
        let value = bound <= 256 ? Int(byte()) : Int(byte()) << 8 | Int(byte())
        return value % bound
    }

    package mutating func bytes(_ count: Int) -> [UInt8] {
        let taken = Array(rest.prefix(count))
        rest = rest.dropFirst(count)
        return taken
    }

    /// Bytes up to a separator, which is dropped, or the end.
    package mutating func bytes(upTo separator: UInt8) -> [UInt8] {
        let taken = rest.prefix { $0 != separator }
        rest = rest.dropFirst(taken.count + 1)
        return Array(taken)
    }

    package mutating func remaining() -> [UInt8] {
        defer { rest = [] }
        return Array(rest)
    }
}

/// How an input is cut into the pieces that a decoder sees.
package enum Cut: Equatable {
    case whole
    case byteByByte
    case random(seed: UInt64)

    /// The three ways that each input goes.
    static func all(seed: UInt8) -> [Cut] { [.whole, .byteByByte, .random(seed: UInt64(seed))] }

    func pieces(of bytes: [UInt8]) -> [[UInt8]] {
        switch self {
        case .whole: return [bytes]
        case .byteByByte: return bytes.map { [$0] }
        case .random(let seed):
            var generator = SeededGenerator(seed: seed)
            var pieces: [[UInt8]] = []
            var start = 0
            while start < bytes.count {
                // Small pieces cut headers, large ones hold several messages.
                let most = generator.next() & 1 == 0 ? 9 : max(9, bytes.count / 3)
                let end = min(bytes.count, start + 1 + Int(generator.next() % UInt64(most)))
                pieces.append(Array(bytes[start..<end]))
                start = end
            }
            return pieces
        }
    }
}

/// Checks that what an input led to does not depend on how it is cut; gives what it led to.
func sameForAllCuts<Outcome: Equatable>(seed: UInt8, _ body: (Cut) -> Outcome) -> Outcome {
    let whole = body(.whole)
    for cut in Cut.all(seed: seed).dropFirst() {
        let outcome = body(cut)
        require(outcome == whole, "the outcome depends on the cut \(cut):\n\(outcome)\nwhole:\n\(whole)")
    }
    return whole
}

/// Traps with a message, in release builds too, where `precondition` drops it.
func require(_ condition: Bool, _ message: @autoclosure () -> String = "", file: StaticString = #fileID, line: UInt = #line) {
    if !condition { fatalError("does not hold: \(message())", file: file, line: line) }
}
