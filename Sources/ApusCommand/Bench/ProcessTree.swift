import ApusPlatform

/// The CPU time of a process and its descendants, from `/proc`.
struct ProcessTree {
    let root: Int32

    init?(root: Int32) {
        guard !FileSystem.names(in: "/proc/\(root)/task").isEmpty else { return nil }
        self.root = root
    }

    /// Seconds of user and system time.
    var cpuSeconds: Double { members(of: root).reduce(0) { $0 + Self.seconds($1) } }

    private func members(of pid: Int32) -> [Int32] {
        let tasks = FileSystem.names(in: "/proc/\(pid)/task")
        let children = tasks.flatMap { task in
            Self.words("/proc/\(pid)/task/\(task)/children").compactMap { Int32($0) }
        }
        return [pid] + children.flatMap(members)
    }

    private static func seconds(_ pid: Int32) -> Double {
        let tasks = FileSystem.names(in: "/proc/\(pid)/task")
        return tasks.reduce(0) { $0 + (words("/proc/\(pid)/task/\($1)/schedstat").first.flatMap { Double($0) } ?? 0) / 1e9 }
    }

    /// Bytes of a `children` file: enough for ten thousand children of a thread.
    private static let maxFileBytes = 64 * 1024

    private static func words(_ path: String) -> [Substring] {
        let bytes = (try? FileSystem.contents(of: path, maxBytes: maxFileBytes)) ?? []
        return String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
    }
}
