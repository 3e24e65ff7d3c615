import Glibc

/// Small files: configuration, keys, state. Contents are bounded, secrets are written 0600, nothing is overwritten by accident.
package enum SystemFiles {
    package struct Contents: Sendable {
        package var bytes: [UInt8]
        package var isWorldReadable: Bool

        package init(bytes: [UInt8], isWorldReadable: Bool = false) {
            self.bytes = bytes
            self.isWorldReadable = isWorldReadable
        }
    }

    package static let maximumSize = 1 << 20

    /// How long a pipe or device may take until its end.
    package static let patience = Duration.seconds(10)

    /// Reads a whole file of at most `limit` bytes.
    /// - Parameters:
    ///   - isRegular: whether it must be a file on a disk. Otherwise pipes work too, so that a key can come from a process substitution.
    ///   - patience: how long a pipe or device may take in all.
    package static func read(
        _ path: String, limit: Int = maximumSize, isRegular: Bool = false, patience: Duration = patience
    ) throws(FileError) -> Contents {
        // The opening of a pipe would wait for somebody who writes.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { throw FileError(path: path, problem: .system(.reading, errno)) }
        defer { close(descriptor) }
        return try read(descriptor, path: path, limit: limit, isRegular: isRegular, patience: patience)
    }

    /// - Parameter patience: `nil` waits for ever, for what somebody types.
    package static func read(
        _ descriptor: CInt, path: String, limit: Int = maximumSize, isRegular mustBeRegular: Bool = false, patience: Duration? = nil
    ) throws(FileError) -> Contents {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw FileError(path: path, problem: .system(.reading, errno)) }
        guard status.st_mode & S_IFMT != S_IFDIR else { throw FileError(path: path, problem: .isDirectory) }
        let isRegular = status.st_mode & S_IFMT == S_IFREG
        guard isRegular || !mustBeRegular else { throw FileError(path: path, problem: .notRegular) }
        let deadline = isRegular ? nil : patience.map { ContinuousClock.now + $0 }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while true {
            if let deadline, let problem = problem(awaiting: descriptor, until: deadline) { throw FileError(path: path, problem: problem) }
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0 && (errno == EINTR || errno == EAGAIN && deadline != nil) { continue }
            guard count >= 0 else { throw FileError(path: path, problem: .system(.reading, errno)) }
            if count == 0 { break }
            bytes += chunk[..<count]
            guard bytes.count <= limit else { throw FileError(path: path, problem: .tooLarge(limit: limit)) }
        }
        return Contents(bytes: bytes, isWorldReadable: isRegular && status.st_mode & S_IROTH != 0)
    }

    /// Waits until there is something to read, or the end.
    private static func problem(awaiting descriptor: CInt, until deadline: ContinuousClock.Instant) -> FileError.Problem? {
        while true {
            let left = ContinuousClock.now.duration(to: deadline)
            guard left > .zero else { return .noAnswer }
            var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let count = poll(&request, 1, CInt(clamping: left / .milliseconds(1) < 1 ? 1 : Int64(left / .milliseconds(1))))
            if count > 0 { return nil }
            if count < 0 && errno != EINTR { return .system(.reading, errno) }
        }
    }

    /// Writes a file that must not exist yet, readable by its owner alone.
    package static func create(_ path: String, _ bytes: [UInt8]) throws(FileError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError(path: path, problem: errno == EEXIST ? .exists : .system(.writing, errno)) }
        defer { close(descriptor) }
        do {
            try write(bytes, to: descriptor, path: path)
        } catch {
            unlink(path)
            throw error
        }
    }

    /// Puts a new file, mode 0600, in the place of an old one in one step: a reader sees all of one of them.
    package static func replace(_ path: String, _ bytes: [UInt8]) throws(FileError) {
        let temporary = "\(path).new"
        unlink(temporary)
        try create(temporary, bytes)
        guard rename(temporary, path) == 0 else {
            let code = errno
            unlink(temporary)
            throw FileError(path: path, problem: .system(.writing, code))
        }
    }

    package static func remove(_ path: String) { unlink(path) }

    /// Makes a directory, mode 0700, and those above it.
    package static func createDirectory(_ path: String) throws(FileError) {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
            throw FileError(path: path, problem: .system(.writing, errno))
        }
        try createDirectory(String(path[..<slash]))
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw FileError(path: path, problem: .system(.writing, errno)) }
    }

    package static func exists(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0
    }

    /// `path` as seen from the directory of the file `base`.
    package static func resolve(_ path: String, besides base: String?) -> String {
        guard !path.hasPrefix("/"), let base, let slash = base.lastIndex(of: "/") else { return path }
        return base[...slash] + path
    }

    private static func write(_ bytes: [UInt8], to descriptor: CInt, path: String) throws(FileError) {
        var offset = 0
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress.map { $0 + offset }, $0.count - offset) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw FileError(path: path, problem: .system(.writing, errno)) }
            offset += count
        }
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw FileError(path: path, problem: .system(.writing, errno)) }
    }
}

/// Why a file or directory cannot be used.
package struct FileError: Error, Hashable, CustomStringConvertible {
    package enum Action: Hashable, Sendable { case reading, writing }

    package enum Problem: Hashable, Sendable {
        case system(Action, CInt)
        case isDirectory
        /// A pipe, a device or a socket.
        case notRegular
        /// A pipe or device whose end did not come in time.
        case noAnswer
        /// In bytes.
        case tooLarge(limit: Int)
        case exists
    }

    package var path: String
    package var problem: Problem

    package init(path: String, problem: Problem) {
        self.path = path
        self.problem = problem
    }

    package var description: String { "\(LogText.escape(path)): \(message); \(advice)" }

    package var message: String {
        switch problem {
        case .system(.reading, let code): "cannot be read: \(systemMessage(code))"
        case .system(.writing, let code): "cannot be written: \(systemMessage(code))"
        case .isDirectory: "is a directory"
        case .notRegular: "is a pipe, a device or a socket, where a file must be"
        case .noAnswer: "has not ended within \(SystemFiles.patience.components.seconds) s"
        case .tooLarge(let limit): "is larger than \(limit) bytes"
        case .exists: "exists already and is never overwritten"
        }
    }

    package var advice: String {
        switch problem {
        case .system(.reading, ENOENT): "check the path"
        case .system(.writing, ENOENT): "make its directory, or choose another path"
        case .system(_, ENAMETOOLONG): "choose a shorter path"
        case .system(_, EISDIR): "name a file in it"
        case .system(_, EACCES), .system(_, EPERM): "give this user access, or choose another path"
        case .system: "choose another path"
        case .isDirectory: "name a file in it"
        case .notRegular: "remove it"
        case .noAnswer: "see to it that somebody writes into it and closes it, or name a file"
        case .tooLarge: "name the right file"
        case .exists: "choose another path, or remove it first"
        }
    }
}

/// The system's text for an error number.
package func systemMessage(_ code: CInt) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
