import CLinux
import Glibc

/// Memory mapped from the kernel in whole pages, for buffers so large that freed ones must return
/// to the kernel at once instead of staying in a fragmented heap. Untouched pages cost nothing. As
/// with any allocation, the process ends when memory is exhausted.
package enum Pages {
    /// Maps zeroed pages (`mmap MAP_PRIVATE | MAP_ANONYMOUS`).
    package static func map(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        let start = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let start = unsafe start, unsafe start != MAP_FAILED else { fatalError("mmap: no memory for \(byteCount) bytes") }
        return unsafe UnsafeMutableRawBufferPointer(start: start, count: byteCount)
    }

    /// Resizes a mapping (`mremap`); it may move, without a copy.
    package static func resize(_ pages: UnsafeMutableRawBufferPointer, to byteCount: Int) -> UnsafeMutableRawBufferPointer {
        guard let start = unsafe apus_resize_pages(pages.baseAddress, pages.count, byteCount) else {
            fatalError("mremap: no memory for \(byteCount) bytes")
        }
        return unsafe UnsafeMutableRawBufferPointer(start: start, count: byteCount)
    }

    /// Unmaps the pages; they must not be accessed afterwards.
    package static func unmap(_ pages: UnsafeMutableRawBufferPointer) { unsafe munmap(pages.baseAddress, pages.count) }
}
