import Glibc
import TestSupport

/// A network namespace for the calling thread.
enum Network {
    /// CLONE_NEWNET of linux/sched.h.
    private static let newNetwork: Int32 = 0x4000_0000

    static func enterOwn() throws {
        // Glibc declares unshare(2) for _GNU_SOURCE only, which Swift does not define.
        typealias Unshare = @convention(c) (Int32) -> Int32
        guard let symbol = dlsym(nil, "unshare") else { throw TestFailure("no unshare") }
        guard unsafeBitCast(symbol, to: Unshare.self)(newNetwork) == 0 else { throw TestFailure.call("unshare") }
        let socket = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(socket) }
        var request = ifreq()
        request.ifr_ifrn.ifrn_name.0 = CChar(UInt8(ascii: "l"))
        request.ifr_ifrn.ifrn_name.1 = CChar(UInt8(ascii: "o"))
        request.ifr_ifru.ifru_flags = Int16(IFF_UP | IFF_RUNNING)
        guard ioctl(socket, UInt(SIOCSIFFLAGS), &request) == 0 else { throw TestFailure.call("ioctl") }
    }
}
