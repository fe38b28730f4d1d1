import Glibc
import TestSupport
import Testing

extension Integration {
    /// As curl's torture tests: a session is run again and again, and each time another of its system calls fails.
    @Suite("Failing system calls")
    struct FailingCalls {
        private static let page = "a page"
        private static let bigFile = [UInt8](repeating: 0x61, count: 1 << 20)

        private let faults: Faults
        private let place: TemporaryDirectory
        private let server: ChildProcess
        private let port: UInt16
        private let worker: pid_t

        init() throws {
            faults = try Faults()
            place = try TemporaryDirectory()
            try Files.write(Self.page.utf8, to: place.path + "/index.html")
            try Files.write(Self.bigFile, to: place.path + "/big.bin")
            let ports = place.path + "/ports"
            server = try ChildProcess(
                [Places.command, "serve", "--workers", "1", "--listen", "127.0.0.1:0", "--demo", "--root", place.path]
                    + ["--port-file", ports, "--log-level", "error"],
                environment: faults.environment)
            let isUp = Deadline(after: .seconds(20)).wait { [server] in Files.exists(ports) || server.hasEnded != nil }
            guard isUp, let port = Files.text(ports)?.split(separator: "\n").first?.split(separator: ":").last.flatMap({ UInt16($0) }),
                let worker = server.group.first(where: { [server] in $0.parent == server.pid })?.pid
            else {
                throw TestFailure("the server did not come up:\n\(server.standardError)")
            }
            self.port = port
            self.worker = worker
        }

        // MARK: The session

        private func connect() throws -> RawClient { try RawClient(port: port, timeout: .seconds(4)) }

        private func browse() throws {
            let client = try connect()
            try expect(client.request("GET /"), Self.page.utf8.elementsEqual)
            try expect(client.request("GET /big.bin"), Self.bigFile.elementsEqual)
            try expect(client.request("HEAD /index.html"), \.isEmpty)
            try expect(client.request("GET /nothing"), status: 404)
            try client.send("GET /big.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            try expect(client.response(), Self.bigFile.elementsEqual)
            guard try client.receiveToEnd() == [] else { throw TestFailure("no end") }
        }

        /// A file is answered whole, or by a status that says that it cannot be.
        private func expect(_ response: RawResponse, status: Int = 200, _ isRight: ([UInt8]) -> Bool = { _ in true }) throws {
            switch response.status {
            case status where isRight(response.body): break
            case 500, 503: throw Unavailable()
            default: throw TestFailure("a wrong answer: \(response)")
            }
        }

        private struct Unavailable: Error {}

        private func post() throws {
            let client = try connect()
            guard try client.request("POST /worker", "Content-Length: 5", body: "hello").status == 405 else {
                throw TestFailure("a wrong answer")
            }
        }

        private func refuse() throws {
            let client = try connect()
            try client.send("GET / HTTP/1.1\r\n\r\n")
            guard try client.response().status == 400, try client.receiveToEnd() == [] else { throw TestFailure("no end") }
        }

        private func talk() throws {
            let client = try connect()
            try client.upgrade()
            let long = RawFrame(opcode: 2, payload: [UInt8](repeating: 7, count: 70_000))
            for frame in [RawFrame.text("hello"), long] {
                try client.send(frame)
                guard try client.frame() == frame else { throw TestFailure("a wrong echo") }
            }
            try client.send(RawFrame(opcode: 9, payload: [1, 2, 3]))
            guard try client.frame() == RawFrame(opcode: 10, payload: [1, 2, 3]) else { throw TestFailure("a wrong pong") }
            try client.send(RawFrame.close(1000))
            guard try client.frame().closeCode == 1000, try client.receiveToEnd() == [] else { throw TestFailure("a wrong end") }
        }

        private func broadcast() throws {
            let clients = try (0..<3).map { _ in try connect() }
            for client in clients { try client.upgrade(path: "/broadcast") }
            try clients[0].send(RawFrame.text("to all"))
            for client in clients where try client.frame().text != "to all" { throw TestFailure("a wrong message") }
            clients[1].resetOnClose()
            clients[1].end()
        }

        /// What the clients of a session saw that they must not: a wrong answer, or no end where there was no answer.
        private func session(mayBreak: Bool) -> [String] {
            [browse, post, refuse, talk, broadcast].compactMap { part in
                do {
                    try part()
                    return nil
                } catch RawClient.Failure.ended where mayBreak {
                    return nil
                } catch is Unavailable where mayBreak {
                    return nil
                } catch {
                    return "\(error)"
                }
            }
        }

        private var openDescriptors: Int { ProcessTable.descriptorCount(of: worker) }

        struct Fault: Sendable, CustomTestStringConvertible {
            let call: Faults.Call
            let error: Int32
            /// Whether the peer may be told by a closed connection; else the call is repeated, or done without.
            var breaks = true
            var testDescription: String { "\(call): \(String(cString: strerror(error)))" }
        }

        @Test(
            "the n-th call fails, for every n of a session: the worker lives, no descriptor is lost, and nobody waits in vain",
            arguments: [
                Fault(call: .recv, error: ECONNRESET), Fault(call: .recv, error: ENOMEM), Fault(call: .recv, error: EINTR, breaks: false),
                Fault(call: .send, error: EPIPE), Fault(call: .send, error: ENOBUFS), Fault(call: .send, error: EINTR, breaks: false),
                Fault(call: .send, error: EAGAIN, breaks: false), Fault(call: .sendmsg, error: ECONNRESET),
                Fault(call: .sendmsg, error: EAGAIN, breaks: false), Fault(call: .accept4, error: EMFILE),
                Fault(call: .accept4, error: ENFILE), Fault(call: .accept4, error: ENOMEM),
                Fault(call: .accept4, error: ECONNABORTED, breaks: false), Fault(call: .accept4, error: EINTR, breaks: false),
                Fault(call: .epollControl, error: ENOMEM), Fault(call: .epollControl, error: ENOSPC),
                Fault(call: .epollWait, error: EINTR, breaks: false), Fault(call: .setsockopt, error: ENOMEM),
                Fault(call: .shutdown, error: ENOTCONN), Fault(call: .ioctl, error: EINVAL), Fault(call: .getpeername, error: ENOTCONN),
                Fault(call: .fcntl, error: EMFILE), Fault(call: .openat2, error: EMFILE), Fault(call: .openat2, error: EIO),
                Fault(call: .openat2, error: EINTR), Fault(call: .fstat, error: EIO), Fault(call: .sendfile, error: EIO),
                Fault(call: .sendfile, error: EPIPE), Fault(call: .sendfile, error: EAGAIN, breaks: false),
                Fault(call: .write, error: EAGAIN), Fault(call: .read, error: EINTR, breaks: false), Fault(call: .pread, error: EIO),
            ])
        func everyCall(fault: Fault) async throws {
            let (seen, complaints) = try await onThread { () -> (Int, [String]) in
                let descriptors = openDescriptors
                var complaints = session(mayBreak: false).map { "without a fault: \($0)" }
                var n = 1
                while complaints.count < 10 {
                    faults.arm(fault.call, of: worker, error: fault.error, n: n)
                    let seen = session(mayBreak: fault.breaks)
                    let hasFired = faults.hasFired
                    faults.disarm()
                    complaints += seen.map { "\(fault.call) \(n): \($0)" }
                    guard kill(worker, 0) == 0, ProcessTable.entry(worker)?.parent == server.pid else {
                        return (n, complaints + ["\(fault.call) \(n): the worker has died: \(server.standardError)"])
                    }
                    let isEven = Deadline(after: .seconds(6)).wait { openDescriptors == descriptors }
                    if !isEven { complaints.append("\(fault.call) \(n): \(openDescriptors) descriptors, \(descriptors) before") }
                    if !hasFired { break }
                    n += 1
                }
                complaints += session(mayBreak: false).map { "afterwards: \($0)" }
                return (n - 1, complaints)
            }
            #expect(complaints == [], "\(server.standardError)")
            print("faults: \(fault.testDescription): \(seen) calls")
        }
    }
}
