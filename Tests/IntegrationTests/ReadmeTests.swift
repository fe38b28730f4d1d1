import Glibc
import TestSupport
import Testing

extension Integration {
    @Suite("The README's example")
    struct Readme {
        @Test("it serves an echo and the files of its directory, and ends on SIGTERM")
        func example() async throws {
            try await onThread {
                let place = try TemporaryDirectory()
                guard mkdir(place.path + "/public", 0o755) == 0 else { throw TestFailure.call("mkdir") }
                try Files.write("hello".utf8, to: place.path + "/public/index.html")
                // The example's port is fixed and may be taken: in a network of its own it is free. That is this thread's and its child's.
                try Network.enterOwn()
                let process = try ChildProcess([Places.besideTests("ReadmeExample")], in: place.path)
                var client: RawClient?
                let isUp = Deadline(after: .seconds(10)).wait {
                    client = try? RawClient(port: 8080)
                    return client != nil || process.hasEnded != nil
                }
                guard isUp, let client else { throw TestFailure("the example did not come up:\n\(process.standardError)") }
                try client.upgrade(path: "/echo")
                try client.send(.text("swift"))
                #expect(try client.frame() == .text("swift"))
                #expect(try RawClient(port: 8080).request("GET /").text == "hello")
                process.signal(SIGTERM)
                #expect(try process.wait(within: .seconds(5)) == .exited(0))
                #expect(process.group.isEmpty)
            }
        }

        @Test("without its directory it ends with one line that says so")
        func missingDirectory() throws {
            let place = try TemporaryDirectory()
            let process = try ChildProcess([Places.besideTests("ReadmeExample")], in: place.path)
            #expect(try process.wait(within: .seconds(10)) == .exited(78))
            let expected = "ReadmeExample: cannot serve the directory \"public\": No such file or directory\n"
            #expect(process.standardError == expected)
        }
    }
}
