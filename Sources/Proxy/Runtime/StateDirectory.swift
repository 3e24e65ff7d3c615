import Glibc

/// The directory that a running process keeps its state in. One process at a time: the lock is held as long as the value lives,
/// and the kernel drops it when the process dies.
package final class StateDirectory: Sendable {
    package let path: String
    private let lock: CInt

    /// Creates the directory (0700) if it is missing, checks that it is ours alone, and locks it.
    package init(path: String) throws(StateDirectoryError) {
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        do throws(FileError) {
            try SystemFiles.createDirectory(path)
        } catch {
            if case .system(_, let code) = error.problem { throw StateDirectoryError(path: path, problem: .system(code)) }
            throw StateDirectoryError(path: path, problem: .notADirectory)
        }
        try Self.check(path)
        let descriptor = open("\(path)/lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw StateDirectoryError(path: path, problem: .system(errno)) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            let holder = Self.readProcessID(descriptor)
            close(descriptor)
            throw StateDirectoryError(path: path, problem: code == EWOULDBLOCK ? .locked(processID: holder) : .system(code))
        }
        let text = Array("\(getpid())\n".utf8)
        guard ftruncate(descriptor, 0) == 0, pwrite(descriptor, text, text.count, 0) == text.count else {
            let code = errno
            close(descriptor)
            throw StateDirectoryError(path: path, problem: .system(code))
        }
        self.path = path
        lock = descriptor
    }

    /// For roles of which many processes may run at once: the first has the default directory and answers `status` there, the
    /// others run without one. A directory that was asked for must be had.
    package static func openIfFree(_ path: String?, isGiven: Bool) throws(StateDirectoryError) -> StateDirectory? {
        guard let path else { return nil }
        return isGiven ? try StateDirectory(path: path) : try? StateDirectory(path: path)
    }

    deinit { close(lock) }

    package func file(_ name: String) -> String { "\(path)/\(name)" }
    package var adminSocket: String { Self.adminSocket(in: path) }
    package static func adminSocket(in path: String) -> String { "\(path)/admin.sock" }

    /// `$XDG_STATE_HOME/kakuremichi/ROLE`, else `$HOME/.local/state/kakuremichi/ROLE`; `nil` if neither is an absolute path.
    package static func defaultPath(role: Role, environment: [String: String]) -> String? {
        if let base = environment["XDG_STATE_HOME"], base.hasPrefix("/") { return "\(base)/kakuremichi/\(role)" }
        if let home = environment["HOME"], home.hasPrefix("/") { return "\(home)/.local/state/kakuremichi/\(role)" }
        return nil
    }

    private static func check(_ path: String) throws(StateDirectoryError) {
        var status = stat()
        guard lstat(path, &status) == 0 else { throw StateDirectoryError(path: path, problem: .system(errno)) }
        switch status.st_mode & S_IFMT {
        case S_IFLNK: throw StateDirectoryError(path: path, problem: .symbolicLink)
        case S_IFDIR: break
        default: throw StateDirectoryError(path: path, problem: .notADirectory)
        }
        guard status.st_uid == geteuid() else { throw StateDirectoryError(path: path, problem: .ownedByAnother(userID: status.st_uid)) }
        guard status.st_mode & 0o022 == 0 else { throw StateDirectoryError(path: path, problem: .writableByOthers) }
    }

    private static func readProcessID(_ descriptor: CInt) -> Int? {
        var buffer = [UInt8](repeating: 0, count: 16)
        let count = pread(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { return nil }
        return Int(String(decoding: buffer[..<count].prefix { (0x30...0x39).contains($0) }, as: UTF8.self))
    }
}

/// Why a state directory cannot be used.
package struct StateDirectoryError: Error, Hashable, CustomStringConvertible {
    package enum Problem: Hashable, Sendable {
        case locked(processID: Int?)
        case symbolicLink
        case notADirectory
        case ownedByAnother(userID: UInt32)
        case writableByOthers
        case system(CInt)
    }

    package var path: String
    package var problem: Problem

    package init(path: String, problem: Problem) {
        self.path = path
        self.problem = problem
    }

    package var description: String {
        let name = LogText.escape(path)
        switch problem {
        case .locked(let processID):
            let holder = processID.map { "process \($0)" } ?? "another process"
            return "the state directory \(name) is in use by \(holder); stop it, or give --state another directory"
        case .symbolicLink: return "the state directory \(name) is a symbolic link; name the directory itself"
        case .notADirectory: return "the state directory \(name) is not a directory; name another one"
        case .ownedByAnother(let userID):
            return "the state directory \(name) belongs to another user (uid \(userID)); give --state a directory of your own"
        case .writableByOthers: return "other users can write to the state directory \(name); run chmod 700 on it"
        case .system(ENAMETOOLONG):
            return "the state directory \(name) has too long a path, or a part of it is; give --state a shorter one"
        case .system(let code):
            return "the state directory \(name) cannot be used: \(systemMessage(code)); give --state a directory that you can write to"
        }
    }
}
