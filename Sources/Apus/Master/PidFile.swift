import ApusPlatform
import ApusSupervisor

/// The pid file of the master, locked while it runs: a second instance with the same file does not
/// start. During an upgrade it is renamed to `FILE.oldbin`, as in nginx.
final class PidFile {
    private let path: String
    private var current: String
    /// Open while the lock is held.
    private let file: FileLock

    /// - Throws: `ConfigurationError.file`.
    init(_ path: String) throws(ConfigurationError) {
        self.path = path
        current = path
        if let holder = FileLock.holder(of: path) {
            throw .file(path, "process \(holder) is already running with this pid file")
        }
        do {
            file = try FileLock(replacing: path, with: "\(Process.id)\n")
        } catch {
            throw .file(path, error.reason)
        }
    }

    private var aside: String { path + ".oldbin" }

    /// Why an upgrade cannot start: the previous program still drains, and its pid file is
    /// `FILE.oldbin`. nginx refuses USR2 then, too.
    var obstacle: String? {
        // Opening and closing this process's own file would release its lock (fcntl(2)).
        guard current != aside, let holder = FileLock.holder(of: aside) else { return nil }
        return "the previous program, pid \(holder), has not ended yet"
    }

    func follow(_ stage: UpgradeStage) {
        switch stage {
        case .starting: move(to: aside)
        case .failed: move(to: path)
        case .done: break
        }
    }

    private func move(to place: String) {
        if (try? FileSystem.rename(current, to: place)) != nil { current = place }
    }

    func remove() { FileSystem.remove(current) }
}
