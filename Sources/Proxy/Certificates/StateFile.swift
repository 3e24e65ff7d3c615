#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Whole small files of the state directory: read with a bound, written so that a crash leaves the old or the new one, and
/// never readable for others for even a moment when `mode` says so.
enum StateFile {
    struct Content {
        var bytes: [UInt8]
        /// Permission bits.
        var mode: UInt32
        var text: String { String(decoding: bytes, as: UTF8.self) }
    }

    /// Nil if there is no such file.
    static func read(_ path: String, limit: Int = maximumLength) throws(CertificateFileError) -> Content? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            let code = errno
            if code == ENOENT { return nil }
            throw .unreadable(path: path, reason: errorText(code))
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .unreadable(path: path, reason: errorText(errno)) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .unreadable(path: path, reason: "not a regular file") }
        guard status.st_size <= limit else { throw .unreadable(path: path, reason: "longer than \(limit) bytes") }

        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = chunk.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw .unreadable(path: path, reason: errorText(errno)) }
            if count == 0 { break }
            bytes += chunk.prefix(count)
            guard bytes.count <= limit else { throw .unreadable(path: path, reason: "longer than \(limit) bytes") }
        }
        return Content(bytes: bytes, mode: UInt32(status.st_mode) & 0o7777)
    }

    /// Writes beside `path` and renames. `mode` holds from the first byte on, whatever the umask.
    /// - Parameter replaces: false leaves a file that is there as it is.
    static func write(_ text: String, to path: String, mode: mode_t, replaces: Bool = true) throws(CertificateFileError) {
        // Short, whatever the name: a domain may be as long as a file's name can be.
        let temporary = parent(of: path) + "/.new-" + String(UInt64.random(in: .min ... .max), radix: 16)
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw .unwritable(path: path, reason: errorText(errno)) }
        var failure = writeAll(Array(text.utf8), to: descriptor)
        if failure == nil && (fchmod(descriptor, mode) != 0 || fsync(descriptor) != 0) { failure = errno }
        if close(descriptor) != 0 && failure == nil { failure = errno }
        if failure == nil { failure = place(temporary, at: path, replaces: replaces) }
        if let failure {
            unlink(temporary)
            throw .unwritable(path: path, reason: errorText(failure))
        }
        let directory = open(parent(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if directory >= 0 {
            fsync(directory)
            close(directory)
        }
    }

    private static func place(_ temporary: String, at path: String, replaces: Bool) -> Int32? {
        if !replaces {
            let code = link(temporary, path) == 0 ? 0 : errno
            if code == 0 || code == EEXIST {
                unlink(temporary)
                return nil
            }
            // Not every file system has links.
            guard code == EPERM || code == ENOTSUP || code == ENOSYS || code == EMLINK else { return code }
        }
        return rename(temporary, path) == 0 ? nil : errno
    }

    /// Nothing if there is no such file.
    static func remove(_ path: String) throws(CertificateFileError) {
        if unlink(path) != 0, errno != ENOENT { throw .unwritable(path: path, reason: errorText(errno)) }
    }

    static func move(_ path: String, to other: String) throws(CertificateFileError) {
        if rename(path, other) != 0 { throw .unwritable(path: path, reason: errorText(errno)) }
    }

    /// Makes the directory, 0700, and those above it.
    static func makeDirectory(_ path: String) throws(CertificateFileError) {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        if errno == ENOENT, path.utf8.contains(UInt8(ascii: "/")) {
            try makeDirectory(parent(of: path))
            if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        }
        throw .unwritable(path: path, reason: errorText(errno))
    }

    /// Refuses a directory that another user owns or may write into.
    static func checkDirectory(_ path: String) throws(CertificateFileError) {
        var status = stat()
        guard stat(path, &status) == 0 else { throw .unreadable(path: path, reason: errorText(errno)) }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw .unreadable(path: path, reason: "not a directory") }
        guard status.st_uid == geteuid() else {
            throw .unreadable(path: path, reason: "it belongs to another user")
        }
        guard status.st_mode & 0o022 == 0 else {
            throw .unreadable(path: path, reason: "other users may write into it (run `chmod 700 \(path)`)")
        }
    }

    private static func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Int32? {
        var offset = 0
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress?.advanced(by: offset), bytes.count - offset) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return count < 0 ? errno : EIO }
            offset += count
        }
        return nil
    }

    private static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func errorText(_ code: Int32) -> String { String(cString: strerror(code)) }

    /// More than any certificate chain or key needs.
    static let maximumLength = 1 << 20
}
