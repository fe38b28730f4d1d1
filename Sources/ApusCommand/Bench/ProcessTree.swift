import Foundation

/// The CPU time of a process and everything below it, from `/proc`.
struct ProcessTree {
    let root: Int32

    init?(root: Int32) {
        guard FileManager.default.fileExists(atPath: "/proc/\(root)") else { return nil }
        self.root = root
    }

    /// Seconds, user and system together.
    var cpuSeconds: Double { members(of: root).reduce(0) { $0 + Self.seconds($1) } }

    private func members(of pid: Int32) -> [Int32] {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        let children = tasks.flatMap { task in
            Self.words("/proc/\(pid)/task/\(task)/children").compactMap { Int32($0) }
        }
        return [pid] + children.flatMap(members)
    }

    private static func seconds(_ pid: Int32) -> Double {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        return tasks.reduce(0) { $0 + (words("/proc/\(pid)/task/\($1)/schedstat").first.flatMap { Double($0) } ?? 0) / 1e9 }
    }

    private static func words(_ path: String) -> [Substring] {
        ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split { $0 == " " || $0 == "\n" }
    }
}
