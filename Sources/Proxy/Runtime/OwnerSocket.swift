import Glibc
import NIOCore
import NIOPosix
import Synchronization

/// What every Unix socket of a running process has in common: it answers its owner and root, nobody else. Mode 0600, and the
/// kernel's word on who asks.
final class OwnerSocket: Sendable {
    /// What fits in `sockaddr_un`, less its final zero.
    static let maximumPath = 107

    let path: String
    private let channel: any Channel
    /// Which file it is: by the time that it goes, another process may have put its own in this place.
    private let identity: Identity?

    private init(path: String, channel: any Channel, identity: Identity?) {
        self.path = path
        self.channel = channel
        self.identity = identity
    }

    /// Binds `path`. A dead socket in its place is removed; one that somebody listens on is an error. The process has umask 077 since
    /// its start, so that there is no moment at which others could connect.
    /// - Parameters:
    ///   - shorter: what to do about a path that is too long.
    ///   - other: what to do about a path that is taken.
    static func bind(
        _ path: String, group: any EventLoopGroup, shorter: String, other: String,
        _ initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>,
        configure: (ServerBootstrap) -> ServerBootstrap = { $0 }
    ) async throws -> OwnerSocket {
        guard path.utf8.count <= maximumPath else {
            throw AdminFault(error: "the path \(LogText.escape(path)) is longer than \(maximumPath) bytes; \(shorter)")
        }
        let descriptor = try withDirectoryLocked(of: path) {
            try makeRoom(at: path, other: other)
            return try listen(at: path)
        }
        let identity = Identity(of: path)
        do {
            let channel = try await configure(ServerBootstrap(group: group).childChannelInitializer(initializer))
                .withBoundSocket(descriptor).get()
            return OwnerSocket(path: path, channel: channel, identity: identity)
        } catch {
            removeIfStill(identity, at: path)
            throw error
        }
    }

    func close() async {
        Self.removeIfStill(identity, at: path)
        try? await channel.close()
    }

    // MARK: The place

    /// Removes what a process left behind that is gone.
    private static func makeRoom(at path: String, other: String) throws {
        guard SystemFiles.exists(path) else { return }
        guard isSocket(path) else {
            throw AdminFault(error: "\(LogText.escape(path)) is in the way and is not a socket; remove it")
        }
        switch connect(to: path) {
        case 0, EAGAIN: throw AdminFault(error: "another process answers on \(LogText.escape(path)); \(other)")
        case ECONNREFUSED, ENOENT: break
        case let code:
            throw AdminFault(
                error: "\(LogText.escape(path)) is in the way and may be another process's: \(systemMessage(code)); \(other)")
        }
        guard unlink(path) == 0 || errno == ENOENT else {
            throw AdminFault(error: "\(LogText.escape(path)) is in the way and cannot be removed: \(systemMessage(errno))")
        }
    }

    /// Listens at once, so that no other process takes the socket for a dead one.
    private static func listen(at path: String) throws -> CInt {
        let descriptor = socket()
        let isReady =
            withAddress(of: path) { Glibc.bind(descriptor, $0, $1) } == 0 && chmod(path, 0o600) == 0
            && Glibc.listen(descriptor, 64) == 0
        guard isReady else {
            let code = errno
            Glibc.close(descriptor)
            throw AdminFault(error: "\(LogText.escape(path)) cannot be bound: \(systemMessage(code))")
        }
        return descriptor
    }

    /// - Returns: 0 if somebody listens there, else the system's error. `EAGAIN` is somebody who is busy.
    private static func connect(to path: String) -> CInt {
        let descriptor = socket()
        defer { Glibc.close(descriptor) }
        return withAddress(of: path) { Glibc.connect(descriptor, $0, $1) } == 0 ? 0 : errno
    }

    private static func removeIfStill(_ identity: Identity?, at path: String) {
        guard let identity else { return }
        try? withDirectoryLocked(of: path) { if Identity(of: path) == identity { unlink(path) } }
    }

    /// One process at a time looks what is there and puts its own in place. The lock goes with the descriptor.
    private static func withDirectoryLocked<Result>(of path: String, _ body: () throws -> Result) throws -> Result {
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        // Whoever cannot read a directory may still be allowed to bind there; without the lock, as ever.
        guard descriptor >= 0 else { return try body() }
        defer { Glibc.close(descriptor) }
        // Whoever can open a directory can hold its lock for ever: one that others can open is not waited for.
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & 0o077 == 0 else { return try body() }
        while flock(descriptor, LOCK_EX) != 0, errno == EINTR {}
        return try body()
    }

    private static func socket() -> CInt {
        Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
    }

    private static func withAddress(of path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
        guard let address = try? SocketAddress(unixDomainSocketPath: path) else {
            errno = EINVAL
            return -1
        }
        return address.withSockAddr { body($0, socklen_t($1)) }
    }

    private struct Identity: Equatable {
        let device: UInt64
        let inode: UInt64

        init?(of path: String) {
            var status = stat()
            guard lstat(path, &status) == 0 else { return nil }
            (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino))
        }
    }

    // MARK: Who asks

    /// Whether the other side of an accepted connection is this process's user or root.
    static func isOwner(_ channel: any Channel) -> EventLoopFuture<Bool> {
        guard let socket = channel as? any SocketOptionProvider else { return channel.eventLoop.makeSucceededFuture(false) }
        let credentials: EventLoopFuture<PeerCredentials> = socket.unsafeGetSocketOption(
            level: NIOBSDSocket.OptionLevel(rawValue: SOL_SOCKET), name: NIOBSDSocket.Option(rawValue: SO_PEERCRED))
        return credentials.hop(to: channel.eventLoop)
            .map { $0.uid == geteuid() || $0.uid == 0 }
            .recover { _ in false }
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
