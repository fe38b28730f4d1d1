import CLinux
import Glibc

/// Passing descriptors between processes (`SCM_RIGHTS`, unix(7)).
extension Socket {
    /// Most descriptors per packet.
    package static let maxPassed = Int(APUS_MAX_PASSED)

    /// Sends one packet with 1 to `maxPassed` descriptors; the receiver gets duplicates.
    package static func send(_ descriptor: Int32, _ packet: [UInt8], passing passed: [Int32]) throws(SystemError) -> IOResult<Int> {
        try syscall("sendmsg") { unsafe apus_send_descriptors(descriptor, packet, packet.count, passed, Int32(passed.count)) }
    }

    /// Receives one packet and its descriptors, which the caller must close. Never blocks.
    package static func receive(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer, passed: inout [Int32]
    ) throws(SystemError) -> IOResult<Int> {
        var numbers = [Int32](repeating: -1, count: maxPassed)
        var count: Int32 = 0
        let result = try syscall("recvmsg") {
            unsafe apus_receive_descriptors(descriptor, buffer.baseAddress, buffer.count, &numbers, &count)
        }
        passed = Array(numbers.prefix(Int(count)))
        return result
    }
}
