import CLinux
import Glibc

/// Memory straight from the kernel, in whole pages, for buffers so large that they must not wait in the allocator for a neighbour's end:
/// what is unmapped has left the process. Untouched pages cost nothing. Like any allocation, these end the process when there is no memory.
package enum Pages {
    /// Maps zeroed pages (`mmap MAP_PRIVATE | MAP_ANONYMOUS`).
    package static func map(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        let start = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let start = unsafe start, unsafe start != MAP_FAILED else { fatalError("mmap: no memory for \(byteCount) bytes") }
        return unsafe UnsafeMutableRawBufferPointer(start: start, count: byteCount)
    }

    /// Makes a mapping larger or smaller; it may move, which copies nothing (`mremap`).
    package static func resize(_ pages: UnsafeMutableRawBufferPointer, to byteCount: Int) -> UnsafeMutableRawBufferPointer {
        guard let start = unsafe apus_resize_pages(pages.baseAddress, pages.count, byteCount) else {
            fatalError("mremap: no memory for \(byteCount) bytes")
        }
        return unsafe UnsafeMutableRawBufferPointer(start: start, count: byteCount)
    }

    /// Gives a mapping back to the kernel; nothing may touch it any more.
    package static func unmap(_ pages: UnsafeMutableRawBufferPointer) { unsafe munmap(pages.baseAddress, pages.count) }
}
