import Glibc
import NIOCore
import NIOPosix
import Synchronization

/// What every Unix socket of a running process has in common: it answers its owner and root, nobody else. Mode 0600, and the
/// kernel's word on who asks.
enum OwnerSocket {
    /// What fits in `sockaddr_un`, less its final zero.
    static let maximumPath = 107

    /// Binds `path`. A dead socket in its place is removed; one that answers is an error. The process has umask 077 since its start,
    /// so that there is no moment at which others could connect.
    /// - Parameters:
    ///   - shorter: what to do about a path that is too long.
    ///   - other: what to do about a path that is taken.
    static func bind(
        _ path: String, group: any EventLoopGroup, shorter: String, other: String,
        _ initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>,
        configure: (ServerBootstrap) -> ServerBootstrap = { $0 }
    ) async throws -> any Channel {
        guard path.utf8.count <= maximumPath else {
            throw AdminFault(error: "the path \(LogText.escape(path)) is longer than \(maximumPath) bytes; \(shorter)")
        }
        if SystemFiles.exists(path) {
            guard isSocket(path) else {
                throw AdminFault(error: "\(LogText.escape(path)) is in the way and is not a socket; remove it")
            }
            if await answers(at: path, group: group) {
                throw AdminFault(error: "another process answers on \(LogText.escape(path)); \(other)")
            }
            unlink(path)
        }
        let channel = try await configure(ServerBootstrap(group: group).childChannelInitializer(initializer))
            .bind(unixDomainSocketPath: path).get()
        guard chmod(path, 0o600) == 0 else {
            let code = errno
            try? await channel.close()
            throw AdminFault(error: "the mode of \(LogText.escape(path)) cannot be set: \(systemMessage(code))")
        }
        return channel
    }

    /// Whether the other side of an accepted connection is this process's user or root.
    static func isOwner(_ channel: any Channel) -> EventLoopFuture<Bool> {
        guard let socket = channel as? any SocketOptionProvider else { return channel.eventLoop.makeSucceededFuture(false) }
        let credentials: EventLoopFuture<PeerCredentials> = socket.unsafeGetSocketOption(
            level: NIOBSDSocket.OptionLevel(rawValue: SOL_SOCKET), name: NIOBSDSocket.Option(rawValue: SO_PEERCRED))
        return credentials.hop(to: channel.eventLoop)
            .map { $0.uid == geteuid() || $0.uid == 0 }
            .recover { _ in false }
    }

    /// Whether something accepts connections at `path`.
    static func answers(at path: String, group: any EventLoopGroup) async -> Bool {
        guard let channel = try? await ClientBootstrap(group: group).connect(unixDomainSocketPath: path).get() else { return false }
        try? await channel.close()
        return true
    }

    private static func isSocket(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }

    /// `struct ucred` of Linux, which Glibc's module does not show: three 32-bit integers in this order (unix(7), SO_PEERCRED).
    private struct PeerCredentials {
        var pid: Int32
        var uid: UInt32
        var gid: UInt32
    }
}

/// How many connections there are, against a bound.
final class ConnectionCount: Sendable {
    private let count = Atomic(0)
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    /// Whether there is room for one more. Whatever it says, `leave` is owed.
    func enter() -> Bool { count.wrappingAdd(1, ordering: .relaxed).newValue <= limit }
    func leave() { count.wrappingSubtract(1, ordering: .relaxed) }
}
