import Glibc

/// Unpredictable bytes from the kernel (`getentropy(3)`).
package enum SystemRandom {
    package static func bytes(_ count: Int) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            while used < count {
                // getentropy(3) returns at most 256 bytes per call.
                let step = min(256, count - used)
                let result = unsafe getentropy(buffer.baseAddress.map { unsafe $0 + used }, step)
                precondition(result == 0, "the kernel has no random bytes")
                used += step
            }
        }
    }
}

/// Keys for a client's frames: unpredictable, drawn from the kernel many at a time (RFC 6455 §5.3,
/// §10.3).
package struct MaskingKeys {
    private var pool: [UInt8] = []

    package init() {}

    /// Keys generated per call of `SystemRandom`.
    private static let batch = 64

    package mutating func next() -> UInt32 {
        if pool.isEmpty { pool = SystemRandom.bytes(4 * Self.batch) }
        var key: UInt32 = 0
        for _ in 0..<4 { key = key << 8 | UInt32(pool.removeLast()) }
        return key
    }
}
