import Glibc
import Vectors

/// Finds and reads the files that `vectors run` is given. Both are bounded.
package enum VectorFiles {
    /// 16: how deep directories are walked.
    package static let maximumDepth = 16
    /// 10,000: files of one run, whatever paths they come from.
    package static let maximumFiles = 10_000

    /// The files at `path`: itself, or all `*.json` and `*.txt` below it, sorted. Links in directories are not followed, so
    /// that there are no loops.
    ///
    /// - Parameter limit: how many there may be, at least 1; more are a fault.
    package static func find(_ path: String, limit: Int = maximumFiles) throws(VectorFileFault) -> [String] {
        var status = stat()
        guard path != "-" else { return [path] }
        guard stat(path, &status) == 0 else { throw VectorFileFault(path: path, code: errno) }
        guard status.st_mode & S_IFMT == S_IFDIR else { return [path] }
        var files: [String] = []
        try walk(path, depth: 0, limit, &files)
        guard !files.isEmpty else { throw VectorFileFault(path: path, reason: "no *.json or *.txt in this directory") }
        return files
    }

    private static func walk(_ directory: String, depth: Int, _ limit: Int, _ files: inout [String]) throws(VectorFileFault) {
        guard depth < maximumDepth else { throw VectorFileFault(path: directory, reason: "deeper than \(maximumDepth) directories") }
        guard let stream = opendir(directory) else { throw VectorFileFault(path: directory, code: errno) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: $0.pointee)) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        closedir(stream)
        for name in names.sorted() {
            let path = directory.hasSuffix("/") ? directory + name : "\(directory)/\(name)"
            var status = stat()
            guard lstat(path, &status) == 0 else { continue }
            if status.st_mode & S_IFMT == S_IFDIR {
                try walk(path, depth: depth + 1, limit, &files)
            } else if status.st_mode & S_IFMT == S_IFREG, name.hasSuffix(".json") || name.hasSuffix(".txt") {
                guard files.count < limit else {
                    throw VectorFileFault(path: directory, reason: "with this directory the run has more than \(maximumFiles) files")
                }
                files.append(path)
            }
        }
    }

    /// The whole file, or standard input for `-`, up to ``VectorRunner/maximumFileSize``.
    static func read(_ path: String) throws(VectorFileFault) -> [UInt8] {
        let descriptor = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw VectorFileFault(path: path, code: errno) }
        defer { if path != "-" { close(descriptor) } }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw VectorFileFault(path: path, code: errno) }
            if count == 0 { return bytes }
            bytes += chunk[..<count]
            guard bytes.count <= VectorRunner.maximumFileSize else { throw VectorFileFault(path: path, reason: "larger than 64 MB") }
        }
    }
}

/// Why a file cannot be run.
package struct VectorFileFault: Error {
    package var path: String
    package var reason: String

    init(path: String, reason: String) {
        self.path = path
        self.reason = reason
    }

    init(path: String, code: CInt) { self.init(path: path, reason: String(cString: strerror(code))) }
}
