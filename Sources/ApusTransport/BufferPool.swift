import ApusPlatform

/// A worker's memory for incomplete messages and queued output: counted, and its large buffers
/// reused.
///
/// The kernel zeroes every page that it maps, which costs more than echoing a message of that size.
/// A freed large buffer is therefore kept for the next message, up to `maxKeptBytes` in all, last
/// in, first out, because its bytes may still be in the processor's cache. Buffers that stay unused
/// between two calls of `trim` are unmapped: an idle worker keeps none.
@safe package final class BufferPool {
    /// Bytes of all buffers in use, and of memory counted by `note`.
    package var usedBytes: Int { used }
    /// A separate private property: it is not accessible outside the module, so its accesses need
    /// no exclusivity check.
    private var used = 0
    /// Bytes of free large buffers.
    package private(set) var keptBytes = 0
    private var kept: [UnsafeMutableRawBufferPointer] = unsafe []
    /// Number of buffers at the start of `kept` that were not used since the last `trim`.
    private var idle = 0

    /// Called when the first free buffer is kept: the owner must then call `trim` periodically.
    package var whenKeeping: (() -> Void)?

    /// Size in bytes from which a buffer is a mapping of its own.
    package static let largeBytes = 32 * 1024
    /// Granularity of mappings, in bytes, so that one fits the next message of similar size.
    private static let step = 64 * 1024
    /// Sixteen messages of the default maximum size, in bytes.
    package static let maxKeptBytes = 16 << 20
    /// Offset of the buffer in its mapping, in bytes. Without it, the payload behind a frame header
    /// would be copied to kernel pages at a slightly larger page offset, and `rep movs` then takes
    /// twice the time (the low 12 bits of both addresses make the read appear to depend on the
    /// write).
    private static let lead = 256

    package init() {}

    deinit {
        while let buffer = unsafe kept.popLast() { unsafe Self.unmap(buffer) }
    }

    /// Returns a buffer of at least `byteCount` bytes with undefined content.
    func take(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        let buffer: UnsafeMutableRawBufferPointer
        if byteCount < Self.largeBytes {
            unsafe buffer = .allocate(byteCount: max(byteCount, 1), alignment: 16)
        } else if let last = unsafe kept.popLast() {
            keptBytes -= last.count
            idle = min(idle, unsafe kept.count)
            unsafe buffer = last.count >= byteCount ? last : Self.resize(last, to: byteCount)
        } else {
            unsafe buffer = Self.map(byteCount)
        }
        used += buffer.count
        return unsafe buffer
    }

    /// Adds `change` bytes of memory that others hold, such as an array, to the account; negative
    /// when it is freed.
    package func note(_ change: Int) { used += change }

    /// Enlarges a buffer, which may move. Its first `count` bytes are preserved.
    func grow(_ buffer: UnsafeMutableRawBufferPointer, to byteCount: Int, keeping count: Int) -> UnsafeMutableRawBufferPointer {
        guard buffer.count < byteCount else { return unsafe buffer }
        if buffer.count >= Self.largeBytes {
            let larger = unsafe Self.resize(buffer, to: byteCount)
            used += larger.count - buffer.count
            return unsafe larger
        }
        let larger = unsafe take(byteCount)
        // SAFETY: both have room for `count` bytes, and they are different buffers.
        unsafe larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        unsafe giveBack(buffer)
        return unsafe larger
    }

    func giveBack(_ buffer: UnsafeMutableRawBufferPointer) {
        used -= buffer.count
        guard buffer.count >= Self.largeBytes else { return unsafe buffer.deallocate() }
        guard keptBytes + buffer.count <= Self.maxKeptBytes else { return unsafe Self.unmap(buffer) }
        let isFirst = unsafe kept.isEmpty
        unsafe kept.append(buffer)
        keptBytes += buffer.count
        if isFirst { whenKeeping?() }
    }

    /// Unmaps the buffers that stayed unused since the last call.
    ///
    /// - Returns: whether any buffer is still kept.
    package func trim() -> Bool {
        for index in 0..<idle {
            let buffer = unsafe kept[index]
            keptBytes -= buffer.count
            unsafe Self.unmap(buffer)
        }
        unsafe kept.removeFirst(idle)
        idle = unsafe kept.count
        if unsafe kept.isEmpty { unsafe kept = [] }
        return unsafe !kept.isEmpty
    }

    // MARK: Mappings

    private static func map(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: Pages.map(mappedBytes(byteCount))[lead...])
    }

    private static func resize(_ buffer: UnsafeMutableRawBufferPointer, to byteCount: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: Pages.resize(mapping(of: buffer), to: mappedBytes(byteCount))[lead...])
    }

    private static func unmap(_ buffer: UnsafeMutableRawBufferPointer) { unsafe Pages.unmap(mapping(of: buffer)) }

    private static func mapping(of buffer: UnsafeMutableRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        // SAFETY: a large buffer is what `map` or `resize` made: all of a mapping but its first
        // `lead` bytes.
        unsafe UnsafeMutableRawBufferPointer(start: buffer.baseAddress.map { unsafe $0 - lead }, count: buffer.count + lead)
    }

    private static func mappedBytes(_ byteCount: Int) -> Int { (lead + byteCount + step - 1) / step * step }
}
