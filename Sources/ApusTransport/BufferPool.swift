import ApusPlatform

/// A worker's memory for messages that are not whole yet and for output that waits: counted, and its large buffers used again.
///
/// The kernel clears every page that a process is given, which costs more than the echo of what is put there. So a large buffer that is given
/// back is kept for the next one, up to `maxKeptBytes` of them, and the last one comes first, as its bytes may still be in the processor's
/// cache. What nobody needed between two calls of `trim` returns to the kernel: an idle worker keeps nothing.
@safe package final class BufferPool {
    /// Bytes of all buffers that are in use, and of what else was noted.
    package var usedBytes: Int { used }
    /// Its own name, so that nobody outside the module touches it and no access needs to be checked.
    private var used = 0
    /// Bytes of large buffers that are kept for later.
    package private(set) var keptBytes = 0
    private var kept: [UnsafeMutableRawBufferPointer] = unsafe []
    /// How many of the kept ones, from the first, were never taken since the last `trim`.
    private var idle = 0

    /// Called when the first buffer is kept: somebody must `trim` from time to time.
    package var whenKeeping: (() -> Void)?

    /// From here on a buffer is a mapping of its own, in bytes.
    package static let largeBytes = 32 * 1024
    /// Mappings are multiples of this, in bytes, so that one fits the next message of about the same size.
    private static let step = 64 * 1024
    /// Sixteen messages of the default limit, in bytes.
    package static let maxKeptBytes = 16 << 20
    /// Where in a mapping the buffer begins, in bytes. Behind its frame header the payload would else go to a place in the kernel's pages a
    /// few bytes beyond its own: there the processor's string copy takes twice the time (by the low 12 bits of both addresses, it seems to
    /// read what it has just written).
    private static let lead = 256

    package init() {}

    deinit {
        while let buffer = unsafe kept.popLast() { unsafe Self.unmap(buffer) }
    }

    /// A buffer with room for at least `byteCount` bytes, of any content.
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

    /// Counts memory of the same kind that others hold, such as an array; less than nothing when it has gone.
    package func note(_ change: Int) { used += change }

    /// Makes a buffer larger; it may move. Its first `count` bytes stay.
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

    /// Gives back to the kernel what nobody needed since the last call. Whether anything is kept still.
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
        // SAFETY: a large buffer is what `map` or `resize` made: all of a mapping but its first `lead` bytes.
        unsafe UnsafeMutableRawBufferPointer(start: buffer.baseAddress.map { unsafe $0 - lead }, count: buffer.count + lead)
    }

    private static func mappedBytes(_ byteCount: Int) -> Int { (lead + byteCount + step - 1) / step * step }
}
