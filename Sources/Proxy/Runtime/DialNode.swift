import Glibc
import Inet
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard
import Synchronization
import TCPStack
import WGUserspace

/// `kakuremichi dial`: joins standard input and output to one TCP connection in the tunnel. The end of the input is sent as the end
/// of our direction; the program ends when both directions have.
enum DialNode {
    static let chunk = 64 * 1024
    /// The first packet may have to wait for a handshake.
    static let connectTimeout = Duration.seconds(15)

    static func run(_ configuration: InterfaceOnlyConfiguration, to destination: SocketEndpoint, warnings: [ConfigurationFault])
        async throws
    {
        let logger = Logger(label: "dial")
        let state = try StateDirectory.openIfFree(
            configuration.common.stateDirectory, isGiven: configuration.common.isStateGiven)
        let peer = try peer(owning: destination.address, in: configuration.interface)
        let endpoints = state.map { state in
            EndpointStore(
                path: state.file("endpoints"), peers: Set(configuration.interface.peers.map(\.publicKey)),
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(), logger: logger)
        }
        let running = try await RunningInterface(
            role: .dial, common: configuration.common, settings: configuration.interface, warnings: warnings, logger: logger, state: state
        ) { event in
            if case .endpointChanged(let peer, let endpoint) = event { endpoints?.record(peer, at: endpoint) }
        }
        running.answerStatus(routes: { [] }, listeners: { [] })
        if peer.endpoint == nil { await seek(peer, known: endpoints?.endpoints[peer.publicKey], running) }
        let result = await Result {
            do {
                try await transfer(running.interface, configuration.interface, destination)
            } catch TunnelError.timedOut {
                throw await timeoutFailure(peer, running.interface)
            }
        }
        await running.stop()
        endpoints?.save()
        try result.get()
    }

    // MARK: The peer

    private static func peer(owning address: IPAddress, in settings: InterfaceSettings) throws -> WGQuickFile.Peer {
        guard let place = AllowedIPs(settings.peers).lookup(address) else {
            throw CommandFailure("no peer's AllowedIPs holds \(address); add it to the [Peer] that it belongs to, or dial another address")
        }
        return settings.peers[place]
    }

    /// A peer without an endpoint comes by itself; if it has a session with the process before this one, only when that is two minutes
    /// old, or when it has sent something and heard nothing. Where it was seen last it can be asked for a session at once.
    private static func seek(_ peer: WGQuickFile.Peer, known endpoint: SocketEndpoint?, _ running: RunningInterface) async {
        if let endpoint {
            try? await running.interface.contact(peer.publicKey, at: endpoint).get()
        } else {
            running.logger.warning(
                "The peer has no Endpoint in the file and was not seen before: it has to come by itself",
                metadata: ["peer": "\(peer.publicKey)", "limit": "\(connectTimeout.components.seconds) s"])
        }
    }

    /// Whether it was WireGuard or what is behind it.
    private static func timeoutFailure(_ peer: WGQuickFile.Peer, _ interface: WireGuardInterface) async -> any Error {
        let status = try? await interface.status().get().peers.first { $0.publicKey == peer.publicKey }
        guard let status, !status.hasSession else { return TunnelError.timedOut }
        let step =
            status.endpoint == nil
            ? "it has not come within \(connectTimeout.components.seconds) s, and the file has no Endpoint of it: "
                + "see that it runs and reaches UDP port \(interface.listenPort) here, or write its Endpoint"
            : "see that it runs, that both files have each other's key, and that UDP passes"
        return CommandFailure("\(TunnelError.timedOut): no session with the peer \(peer.publicKey); \(step)")
    }

    // MARK: The bytes

    private static func transfer(_ interface: WireGuardInterface, _ settings: InterfaceSettings, _ destination: SocketEndpoint) async throws
    {
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = connectTimeout
        let source = settings.sourceAddress(for: destination.address)
        let channel = try await interface.connect(to: destination, from: source, options: options) { channel in
            channel.setOption(.allowRemoteHalfClosure, value: true)
        }.flatMapThrowing { channel in
            // Still in the tick in which it connected: nothing has been read.
            try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
        }.get()
        let connection = channel.channel
        try await channel.executeThenClose { inbound, outbound in
            try await withThrowingTaskGroup(of: (any Error)?.self) { tasks in
                tasks.addTask {
                    // When the other direction fails, nobody waits for more input.
                    let isOver = Atomic(false)
                    do {
                        try await withTaskCancellationHandler {
                            while let bytes = try await readInput(until: isOver) { try await outbound.write(bytes) }
                        } onCancel: {
                            isOver.store(true, ordering: .relaxed)
                        }
                        // Done when the stack has all of it: what waits before the stack is lost when the channel closes.
                        try await connection.close(mode: .output).get()
                        return nil
                    } catch  where error is ChannelError || error is NIOAsyncWriterError {
                        // The connection is gone. The other direction knows why.
                        return error
                    }
                }
                tasks.addTask {
                    for try await bytes in inbound { try await writeOutput(bytes) }
                    return nil
                }
                var unsent: (any Error)?
                // Not `waitForAll`, which waits for the other direction when one has failed.
                while let failure = try await tasks.next() { unsent = unsent ?? failure }
                if let unsent { throw unsent }
            }
        }
    }

    /// `nil` at the end of the input.
    private static func readInput(until isOver: borrowing Atomic<Bool>) async throws -> ByteBuffer? {
        while try await !isInputReady() {
            guard !isOver.load(ordering: .relaxed) else { throw CancellationError() }
        }
        return try await NIOThreadPool.singleton.runIfActive {
            var bytes = [UInt8](repeating: 0, count: chunk)
            while true {
                let count = read(STDIN_FILENO, &bytes, bytes.count)
                if count < 0 && errno == EINTR { continue }
                guard count >= 0 else { throw FileError(path: "standard input", problem: .system(.reading, errno)) }
                return count == 0 ? nil : ByteBuffer(bytes: bytes[..<count])
            }
        }
    }

    /// Waits a moment for input, or for its end.
    private static func isInputReady() async throws -> Bool {
        try await NIOThreadPool.singleton.runIfActive {
            var descriptor = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
            return poll(&descriptor, 1, 200) != 0
        }
    }

    private static func writeOutput(_ buffer: ByteBuffer) async throws {
        try await NIOThreadPool.singleton.runIfActive {
            try buffer.withUnsafeReadableBytes { bytes in
                var offset = 0
                while offset < bytes.count {
                    let count = write(STDOUT_FILENO, bytes.baseAddress.map { $0 + offset }, bytes.count - offset)
                    if count < 0 && errno == EINTR { continue }
                    guard count > 0 else { throw FileError(path: "standard output", problem: .system(.writing, errno)) }
                    offset += count
                }
            }
        }
    }
}

extension Result where Failure == any Error {
    fileprivate init(_ body: () async throws -> Success) async {
        do { self = .success(try await body()) } catch { self = .failure(error) }
    }
}
