import ApusCodec
import TestSupport

/// Frame streams to both roles.
enum FramesTarget {
    /// One frame, its pieces joined.
    private enum Item: Equatable {
        case data(MessageKind, reservedBits: UInt8, starts: Bool, isFinal: Bool, [UInt8])
        case ping([UInt8])
        case pong([UInt8])
        /// Code and reason as they stand in the payload.
        case close(UInt16?, [UInt8])
    }

    private struct Outcome: Equatable {
        var items: [Item] = []
        /// What has come of a data frame that is not complete.
        var partial: [UInt8]?
        /// Which of two faults of one header is named may depend on how much of it has come; the close code may not.
        var violation: CloseCode?
        var unconsumed = 0
    }

    private struct Options {
        let role: Role
        let ownedReservedBits: UInt8
        let maxMessageBytes: Int

        init(_ option: UInt8) {
            role = option & 1 == 0 ? .server : .client
            ownedReservedBits = [0, 0x40, 0x70, 0x10][Int(option >> 1 & 3)]
            maxMessageBytes = [1 << 20, 300, 0, 70_000][Int(option >> 3 & 3)]
        }
    }

    static func run(_ bytes: [UInt8]) {
        var input = FuzzInput(bytes)
        let option = input.byte()
        let wire = input.remaining()
        let options = Options(option)
        let outcome = sameForAllCuts(seed: option) { decode(wire, options, $0) }
        _ = sameForAllCuts(seed: option) {
            MessageReader.read(
                wire, role: options.role, maxMessageBytes: options.maxMessageBytes, $0, shortcut: $0 != .byteByByte)
        }
        checkMessages(outcome, options)
        encodeAgain(outcome, options, wire, seed: option)
    }

    private static func decode(_ bytes: [UInt8], _ options: Options, _ cut: Cut) -> Outcome {
        var decoder = FrameDecoder(
            role: options.role, ownedReservedBits: options.ownedReservedBits, maxMessageBytes: options.maxMessageBytes)
        var outcome = Outcome()
        var open: (piece: DataPiece, payload: [UInt8])?
        var buffer: [UInt8] = []
        for piece in cut.pieces(of: bytes) {
            buffer += piece
            let arrived = buffer
            var position = 0
            do throws(FrameViolation) {
                while let event = try next(&decoder, &buffer, &position) {
                    switch event {
                    case .ping(let range): outcome.items.append(.ping(Array(buffer[range])))
                    case .pong(let range): outcome.items.append(.pong(Array(buffer[range])))
                    case .close(let code, let reason):
                        require(code?.mayBeSent != false && String(validating: buffer[reason], as: UTF8.self) != nil)
                        outcome.items.append(.close(code?.rawValue, Array(buffer[reason])))
                    case .data(let data): add(data, buffer[data.range], &open, &outcome)
                    }
                }
            } catch {
                outcome.violation = error.closeCode
                require(error.reason.utf8.count <= 123, "the reason fits a close frame")
                return outcome
            }
            require(buffer[position...] == arrived[position...], "what was not consumed was not changed")
            buffer.removeFirst(position)
            require(buffer.count <= FrameDecoder.maxUnconsumedBytes, "\(buffer.count) bytes were left")
            require(open == nil || buffer.isEmpty, "payload of data frames is always consumed")
            require(open == nil || decoder.remainingInFrame > 0, "a frame whose payload has not ended owes some")
        }
        outcome.partial = open?.payload
        outcome.unconsumed = buffer.count
        return outcome
    }

    private static func add(
        _ data: DataPiece, _ payload: ArraySlice<UInt8>, _ open: inout (piece: DataPiece, payload: [UInt8])?,
        _ outcome: inout Outcome
    ) {
        if let (first, before) = open {
            require(!data.startsMessage && !payload.isEmpty && data.kind == first.kind && data.isFinalFrame == first.isFinalFrame)
            open = (first, before + payload)
        } else {
            open = (data, Array(payload))
        }
        guard data.remainingInFrame == 0, let (first, whole) = open else { return }
        outcome.items.append(
            .data(data.kind, reservedBits: data.reservedBits, starts: first.startsMessage, isFinal: data.isFinalFrame, whole))
        open = nil
    }

    /// Messages begin and end in turn, and keep to the limit.
    private static func checkMessages(_ outcome: Outcome, _ options: Options) {
        var open: Int?
        for item in outcome.items {
            guard case .data(_, let bits, let starts, let isFinal, let payload) = item else { continue }
            require(starts == (open == nil) && bits & ~options.ownedReservedBits == 0)
            let size = (open ?? 0) + payload.count
            require(size <= options.maxMessageBytes, "a message keeps to the limit")
            open = isFinal ? nil : size
        }
    }

    /// What was read can be written: to a client byte for byte, to a server with keys of our own.
    private static func encodeAgain(_ outcome: Outcome, _ options: Options, _ wire: [UInt8], seed: UInt8) {
        var keys = SeededGenerator(seed: UInt64(seed))
        var output: [UInt8] = []
        for item in outcome.items {
            let key: UInt32? =
                options.role == .server ? UInt32(truncatingIfNeeded: keys.next()) & (seed & 0x80 == 0 ? .max : 0xFF) : nil
            switch item {
            case .data(let kind, let bits, let starts, let isFinal, let payload):
                FrameEncoder.append(
                    starts ? kind.opcode : .continuation, payload.rawSpan, isFinal: isFinal, reservedBits: starts ? bits : 0,
                    maskingKey: key, to: &output)
            case .ping(let payload): FrameEncoder.append(.ping, payload.rawSpan, maskingKey: key, to: &output)
            case .pong(let payload): FrameEncoder.append(.pong, payload.rawSpan, maskingKey: key, to: &output)
            case .close(let code, let reason):
                let payload = FrameEncoder.closePayload(
                    code: code.map { CloseCode(rawValue: $0) }, reason: String(decoding: reason, as: UTF8.self))
                FrameEncoder.append(.close, payload.rawSpan, maskingKey: key, to: &output)
            }
        }
        if options.role == .client {
            require(wire.starts(with: output), "the shortest form is the only one")
        } else {
            let again = decode(output, options, .whole)
            require(again.items == outcome.items && again.violation == nil && again.unconsumed == 0)
        }
    }
}
