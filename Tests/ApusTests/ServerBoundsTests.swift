import Glibc
import Testing

@testable import Apus

@Suite("A description with numbers out of bounds")
struct ServerBoundsTests {
    @Test(
        "1 to 1024 workers, anything else is an error that says so",
        arguments: [(0, false), (-1, false), (1, true), (1024, true), (1025, false)])
    func workers(count: Int, isValid: Bool) throws {
        var server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        server.workers = .count(count)
        let error = ConfigurationError.workers("expected 1 to 1024 workers, got \(count)")
        if isValid { try server.validate() } else { #expect(throws: error) { try server.validate() } }
        if !isValid { #expect(throws: error) { try server.run() } }
    }

    @Test("a descriptor below zero cannot be kept")
    func keptDescriptors() {
        var server = Server()
        server.sandbox.keptDescriptors = [0, -1]
        #expect(throws: ConfigurationError.sandbox("keptDescriptors: expected at least 0, got -1")) {
            try server.sandbox.prepare(features: [], logger: server.logger)
        }
    }

    @Test("a descriptor that is not open cannot be kept")
    func closedDescriptors() throws {
        var server = Server()
        let descriptor = try #require([dup(0)].first { $0 >= 0 })
        close(descriptor)
        server.sandbox.keptDescriptors = [0, descriptor]
        let reason = "keptDescriptors: expected open descriptors, got \(descriptor), which is not open"
        #expect(throws: ConfigurationError.sandbox(reason)) { try server.validate() }
    }

    @Test("certificates are checked at most every 10 ms", arguments: [-3000, 0, 9, 10])
    func certificateInterval(milliseconds: Int) throws {
        var server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        let interval = Duration.milliseconds(milliseconds)
        server.certificateCheckInterval = interval
        if milliseconds >= 10 { return try server.validate() }
        let error = ConfigurationError.certificateCheckInterval("expected nil or at least 10 ms, got \(interval)")
        #expect(throws: error) { try server.validate() }
        #expect(throws: error) { try server.run() }
    }

    @Test("the pid file and the port file are two files, however they are written")
    func sameFile() throws {
        var server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        server.pidFile = "/tmp/apus-one-file"
        server.portFile = "/tmp/../tmp/apus-one-file"
        let error = ConfigurationError.file("/tmp/../tmp/apus-one-file", "it is the pid file, too")
        #expect(throws: error) { try server.validate() }
        #expect(throws: error) { try server.run() }
        server.portFile = "/tmp/apus-another-file"
        try server.validate()
    }

    @Test("the files of clientTLS are checked")
    func clientFiles() {
        var server = Server()
        server.listen(on: .tcp("127.0.0.1", port: 0))
        var options = ClientTLS()
        options.roots = .file("/nowhere/roots.pem")
        server.clientTLS = [ClientTLS(), options]
        let error = ConfigurationError.clientTLS(1, "cannot read \"/nowhere/roots.pem\": No such file or directory")
        #expect(throws: error) { try server.validate() }
        #expect(throws: error) { try server.run() }
    }

    @Test("all faults are found, in the units of a configuration file; validate throws the first")
    func faults() throws {
        var server = Server()
        server.limits.heartbeatTimeout = .milliseconds(99)
        server.limits.pingInterval = .seconds(90)
        server.limits.maxBufferedBytes = 300 << 20
        server.origins = .list(["a.test", "https://a.test/"])
        server.sandbox.keptDescriptors = [-1]
        server.pidFile = "/nowhere/pid"
        for port in [7, 8, 7] as [UInt16] { server.listen(on: .tcp("127.0.0.1", port: port)) }
        let faults = server.faults()
        #expect(faults.map(\.index) == [1, nil, nil, nil, 2, nil, nil])
        #expect(faults.map(\.conflict) == [nil, nil, .limit("maxBufferedBytes"), .limit("pingInterval"), .address(0), nil, nil])
        #expect(
            faults.dropFirst().map { "\($0.error)" } == [
                "limits.heartbeatTimeout: expected at least 100 ms, got 99 ms",
                "limits.maxWorkerBufferBytes: expected at least maxBufferedBytes, 300 MiB, got 256 MiB",
                "limits.silenceTimeout: expected more than pingInterval, 90 s, got 1 min", "127.0.0.1:7 is given twice",
                "sandbox: keptDescriptors: expected at least 0, got -1", "cannot write \"/nowhere/pid\": No such file or directory",
            ])
        let first = try #require(faults.first).error
        #expect(throws: first) { try server.validate() }
    }

    @Test("the sandbox's faults are found each for itself, once", .enabled(if: getuid() == 0))
    func sandboxFaults() {
        var options = SandboxOptions()
        options.user = "nosuchuser"
        options.group = "nosuchgroup"
        options.keptDescriptors = [-1]
        options.root = "/nowhere"
        options.allows = [.reading("/no1"), .writing("/no2")]
        let reasons = options.faults.map { "\($0)" }
        #expect(
            reasons == [
                "sandbox: there is no user \"nosuchuser\"", "sandbox: there is no group \"nosuchgroup\"",
                "sandbox: keptDescriptors: expected at least 0, got -1", "sandbox: chroot to \"/nowhere\": No such file or directory",
                "sandbox: allow reading: \"/no1\": No such file or directory",
                "sandbox: allow writing: \"/no2\": No such file or directory",
            ])
    }

    @Test(
        "sizes and times are written with the largest unit that divides them",
        arguments: [
            (Quantity.text(bytes: 0), "0"), (Quantity.text(bytes: 1023), "1023"), (Quantity.text(bytes: 1536), "1536"),
            (Quantity.text(bytes: 96 << 10), "96 KiB"), (Quantity.text(bytes: 3 << 30), "3 GiB"), (Quantity.text(.zero), "0 ms"),
            (Quantity.text(.microseconds(1500)), "1 ms"), (Quantity.text(.seconds(90)), "90 s"), (Quantity.text(.seconds(120)), "2 min"),
            (Quantity.text(.seconds(7200)), "2 h"), (Quantity.text(.seconds(Int64.max)), "\(Int64.max) s"),
        ])
    func quantities(text: String, expected: String) { #expect(text == expected) }
}
