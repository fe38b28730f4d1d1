import CLinux
import Glibc

/// The sender of a packet, verified by the kernel (`SO_PASSCRED`, unix(7)).
extension Socket {
    /// Enables sender credentials for packets received at this end.
    package static func tellSenders(_ descriptor: Int32) throws(SystemError) {
        try blockingSyscall("setsockopt SO_PASSCRED") { apus_pass_credentials(descriptor) }
    }

    /// Receives one packet of at most `maxBytes` and the sender's PID, 0 if unknown; empty at the
    /// end of input. Never blocks.
    package static func receivePacketWithSender(
        _ descriptor: Int32, maxBytes: Int
    ) throws(SystemError) -> IOResult<(bytes: [UInt8], sender: Int32)> {
        var result = IOResult<Int>.wouldBlock
        var failure: SystemError?
        var sender: Int32 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: maxBytes) { buffer, used in
            do throws(SystemError) {
                result = try syscall("recvmsg") { unsafe apus_receive_with_sender(descriptor, buffer.baseAddress, maxBytes, &sender) }
                if case .done(let count) = result { used = count }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return switch result {
        case .done: .done((bytes, sender))
        case .wouldBlock: .wouldBlock
        }
    }
}
