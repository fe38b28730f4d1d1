// `RandomFixture WORKERS` forks so many workers, each of which draws from every source of randomness there is, in its sandbox, and prints a line:
// a UUID, a number, two masking keys, bytes of OpenSSL's, and the bytes that a session ticket begins with.
import Apus
import ApusPlatform
import COpenSSL
import Foundation

guard CommandLine.arguments.count == 2, let count = Int(CommandLine.arguments[1]) else {
    print("usage: RandomFixture WORKERS")
    exit(64)
}

func hexadecimal(_ bytes: [UInt8]) -> String { bytes.map { String($0, radix: 16) }.joined(separator: ".") }

var server = Server()
server.workers = .count(count)
server.listen(on: .tcp("127.0.0.1", port: 0))
server.logger.logLevel = .error
// By then it has entered its sandbox.
server.onWorkerStart = { worker in
    worker.schedule(after: .zero) {
        var masks = MaskingKeys()
        var drawn = [UInt8](repeating: 0, count: 16)
        RAND_bytes(&drawn, 16)
        print(
            UUID(), UInt64.random(in: 0 ... .max), "\(masks.next())-\(masks.next())", hexadecimal(drawn),
            hexadecimal(SystemRandom.bytes(16)))
        fflush(nil)
    }
}
try server.run()
