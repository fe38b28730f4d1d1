import Glibc

/// Zeroed memory shared with forked children (`mmap MAP_SHARED | MAP_ANONYMOUS`).
@safe package struct SharedMemory: ~Copyable {
    package let bytes: UnsafeMutableRawBufferPointer

    package init(byteCount: Int) throws(SystemError) {
        let start = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        guard let start = unsafe start, unsafe start != MAP_FAILED else { throw SystemError(code: errno, call: "mmap") }
        unsafe bytes = UnsafeMutableRawBufferPointer(start: start, count: byteCount)
    }

    /// Unmaps the memory in this process only; it must not be accessed here afterwards.
    package func giveUp() { unsafe munmap(bytes.baseAddress, bytes.count) }

    deinit { unsafe munmap(bytes.baseAddress, bytes.count) }
}
