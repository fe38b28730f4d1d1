import CLinux
import Glibc

/// Who has sent a packet, as the kernel tells (`SO_PASSCRED`, unix(7)): the sender cannot say otherwise.
extension Socket {
    /// From here on packets that this end of a pair receives come with their sender.
    package static func tellSenders(_ descriptor: Int32) throws(SystemError) {
        try blockingSyscall("setsockopt SO_PASSCRED") { apus_pass_credentials(descriptor) }
    }

    /// One packet of at most `maxBytes`, and the process that sent it, 0 if the kernel does not know; empty at the end. Never waits.
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
