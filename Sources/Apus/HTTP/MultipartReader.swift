import ApusCodec

/// Takes a `multipart/form-data` body (RFC 7578) apart as it arrives, for an `HTTPHandler`; whole
/// bodies are read by `HTTPRequest.form`. It holds no content, and bounds the number of parts and
/// the size of their heads.
public struct MultipartReader {
    private var decoder: MultipartDecoder
    private let part: (MultipartPart) throws -> Void
    private let received: (RawSpan) throws -> Void
    private let partEnded: () throws -> Void

    /// - Parameters:
    ///   - part: called when a part begins.
    ///   - received: called for each piece of the part's content; it is valid during the call only.
    ///   - partEnded: called when the part is complete.
    /// - Throws: `Rejection` with 415 if the request's body is not of this type, or with 400.
    public init(
        _ request: HTTPRequest, part: @escaping (MultipartPart) throws -> Void, received: @escaping (RawSpan) throws -> Void,
        partEnded: @escaping () throws -> Void = {}
    ) throws {
        do throws(MultipartViolation) {
            decoder = MultipartDecoder(boundary: try MultipartBoundary(contentType: request.fields["content-type"]))
        } catch {
            throw Rejection(error.status, error.description)
        }
        (self.part, self.received, self.partEnded) = (part, received, partEnded)
    }

    /// Takes a piece of the body.
    ///
    /// - Throws: `Rejection` with 400 or 413 if the body is not valid, and what the functions
    ///   throw.
    public mutating func receive(_ piece: borrowing RawSpan) throws {
        let piece = copy piece
        var offset = 0
        while let event = try event(in: piece, &offset) {
            switch event {
            case .part(let head): try part(head)
            case .data(let range): try received(piece.extracting(range))
            case .heldBack(let bytes): try received(bytes.rawSpan)
            case .endOfPart: try partEnded()
            case .end: return
            }
        }
    }

    private mutating func event(in piece: RawSpan, _ offset: inout Int) throws -> MultipartDecoder.Event? {
        do throws(MultipartViolation) {
            return try decoder.next(piece.octets, from: &offset)
        } catch {
            throw Rejection(error.status, error.description)
        }
    }

    /// Ends the body.
    ///
    /// - Throws: `Rejection` with 400 if the last boundary is missing.
    public func finish() throws {
        do throws(MultipartViolation) { try decoder.finish() } catch { throw Rejection(error.status, error.description) }
    }
}
