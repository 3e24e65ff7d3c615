import Glibc

/// Where UAPI sockets lie.
package enum UAPIDirectory {
    /// The only place where `wg` looks.
    package static let system = "/var/run/wireguard"

    /// Whether `name` can name an interface: what `wg` accepts, which also keeps it a plain file name.
    package static func isName(_ name: String) -> Bool {
        (1...15).contains(name.utf8.count) && name != "." && name != ".."
            && name.utf8.allSatisfy {
                (0x61...0x7A).contains($0 | 0x20) || (0x30...0x39).contains($0) || [0x5F, 0x3D, 0x2B, 0x2E, 0x2D].contains($0)
            }
    }

    /// Where a new socket goes.
    package struct Choice: Sendable, Equatable {
        package var directory: String
        /// To be shown if `wg` will not find the socket: why, and what to do.
        package var note: String?
    }

    /// The system's directory if we may write there, else the user's own.
    /// - Throws: ``AdminFault`` if there is neither.
    package static func choose(environment: [String: String], system: String = Self.system) throws -> Choice {
        guard let refusal = refusal(of: system) else { return Choice(directory: system) }
        let advice = "to let wg find it, run as root: install -d -m 0700 -o \(geteuid()) \(system)"
        guard let own = own(environment) else {
            throw AdminFault(
                error: "there is no place for the UAPI socket: \(system) \(refusal), and XDG_RUNTIME_DIR is not set; \(advice)")
        }
        do throws(FileError) {
            try SystemFiles.createDirectory(own)
        } catch {
            throw AdminFault(error: "there is no place for the UAPI socket: \(error.description); \(advice)")
        }
        if let refusal = Self.refusal(of: own) {
            throw AdminFault(error: "there is no place for the UAPI socket: \(LogText.escape(own)) \(refusal); \(advice)")
        }
        return Choice(
            directory: own,
            note: "the UAPI socket is in \(LogText.escape(own)), where only kakuremichi wg finds it, as \(system) \(refusal); \(advice)")
    }

    /// Where to look for sockets, in this order.
    package static func all(environment: [String: String], system: String = Self.system) -> [String] {
        [system] + (own(environment).map { [$0] } ?? [])
    }

    private static func own(_ environment: [String: String]) -> String? {
        guard let runtime = environment["XDG_RUNTIME_DIR"], runtime.hasPrefix("/") else { return nil }
        return "\(runtime)/wireguard"
    }

    /// Why no socket can be put there; `nil` if one can. Whoever may write to the directory could put a socket of his own in place
    /// of ours, and would be told the keys.
    private static func refusal(of path: String) -> String? {
        var status = stat()
        guard lstat(path, &status) == 0 else { return errno == ENOENT ? "does not exist" : "cannot be used: \(systemMessage(errno))" }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: break
        case S_IFLNK: return "is a symbolic link"
        default: return "is not a directory"
        }
        guard status.st_uid == geteuid() || status.st_uid == 0 else { return "belongs to another user (uid \(status.st_uid))" }
        guard status.st_mode & 0o022 == 0 else { return "can be written to by other users" }
        guard access(path, W_OK | X_OK) == 0 else { return "is not writable for this user (uid \(geteuid()))" }
        return nil
    }
}
