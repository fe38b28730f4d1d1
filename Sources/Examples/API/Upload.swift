import Apus
import Glibc

/// Writes a request's body to a file.
final class Upload: HTTPHandler {
    private let descriptor: Int32
    private let path: String
    private var count = 0

    init(to path: String) throws {
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o644)
        guard descriptor >= 0 else { throw Rejection(.forbidden, String(cString: strerror(errno))) }
    }

    deinit { close(descriptor) }

    func received(_ piece: RawSpan, on exchange: HTTPExchange) throws {
        let written = piece.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard written == piece.byteCount else { throw Rejection(.insufficientStorage, "the file cannot be written") }
        count += written
    }

    func ended(_ exchange: HTTPExchange) { exchange.respond(.created, text: "\(count) bytes") }

    func aborted(_ exchange: HTTPExchange, reason: String) { unlink(path) }
}
