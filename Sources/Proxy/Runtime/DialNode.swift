import Glibc
import Inet
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard
import Synchronization
import TCPStack

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
        let running = try await RunningInterface(
            role: .dial, common: configuration.common, settings: configuration.interface, warnings: warnings, logger: logger, state: state)
        running.answerStatus(routes: { [] }, listeners: { [] })
        let result = await Result { try await transfer(running.interface, configuration.interface, destination) }
        await running.stop()
        try result.get()
    }

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
