import ApusPlatform
import ApusSupervisor

/// The file with the master's process number, locked while the master runs: a second instance with the same file does not start. On an
/// upgrade it steps aside, to `FILE.oldbin`, as nginx's does.
final class PidFile {
    private let path: String
    private var current: String
    /// Open as long as the lock shall hold.
    private let file: FileLock

    /// - Throws: `ConfigurationError.file`.
    init(_ path: String) throws(ConfigurationError) {
        self.path = path
        current = path
        if let holder = FileLock.holder(of: path) {
            throw .file(path, "process \(holder) runs already and has this pid file")
        }
        do {
            file = try FileLock(replacing: path, with: "\(Process.id)\n")
        } catch {
            throw .file(path, error.reason)
        }
    }

    private var aside: String { path + ".oldbin" }

    /// Why it cannot step aside: the program before this one drains still, and has its file there. nginx refuses USR2 then, too.
    var obstacle: String? {
        // A look at a file of one's own would drop its lock.
        guard current != aside, let holder = FileLock.holder(of: aside) else { return nil }
        return "the program before this one, pid \(holder), has not ended yet"
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
