/// A path and all paths below it.
struct PathPrefix {
    private let path: String
    private let segments: [Substring]

    init(_ path: String) {
        self.path = path
        segments = path.split(separator: "/")
    }

    /// Why no request would match; nil if some can.
    var fault: String? { Routes.objection(to: path).map { "\(path.debugDescription): \($0)" } }

    /// Compares by segments, because `//admin` is the same path as `/admin` for a file system.
    func covers(_ path: String) -> Bool { path.split(separator: "/").starts(with: segments) }
}
