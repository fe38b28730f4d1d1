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
        let error = ConfigurationError.workers("there are 1 to 1024 workers, not \(count)")
        if isValid { try server.validate() } else { #expect(throws: error) { try server.validate() } }
        if !isValid { #expect(throws: error) { try server.run() } }
    }

    @Test("a descriptor below zero cannot be kept")
    func keptDescriptors() {
        var server = Server()
        server.sandbox.keptDescriptors = [0, -1]
        #expect(throws: ConfigurationError.sandbox("-1 is no descriptor that workers could keep")) {
            try server.sandbox.prepare(features: [], logger: server.logger)
        }
    }
}
