import Inet
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard

/// `kakuremichi echo`: gives every byte of a TCP connection in the tunnel back.
enum EchoNode {
    static func run(_ configuration: InterfaceOnlyConfiguration, port: UInt16, warnings: [ConfigurationFault]) async throws {
        let logger = Logger(label: "echo")
        let signals = ShutdownSignals()
        let state = try StateDirectory.openIfFree(
            configuration.common.stateDirectory, isGiven: configuration.common.isStateGiven)
        let running = try await RunningInterface(
            role: .echo, common: configuration.common, settings: configuration.interface, warnings: warnings, logger: logger, state: state)
        let probe = GatewayProbe(interface: running.interface, logger: logger)
        do {
            let listener = try await running.interface.listen(port: port) { channel in
                channel.setOption(.allowRemoteHalfClosure, value: true).flatMapThrowing {
                    try channel.pipeline.syncOperations.addHandler(EchoHandler())
                }
            }.get()
            running.answerStatus(routes: { [] }, listeners: { [.init(kind: "tunnel", address: "tcp port \(port), echo")] })
            probe.start()
            logger.info("Echo is ready", metadata: ["port": .stringConvertible(port)])
            await signals.wait()
            probe.stop()
            try? await listener.close().get()
        } catch {
            await running.stop()
            throw error
        }
        await running.stop()
    }
}

/// Reads only while what was read can be written. Bound to its event loop.
private final class EchoHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.write(data, promise: nil) }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.flush()
        context.fireChannelReadComplete()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        // Without automatic reading the receive window closes, and the other side waits.
        try? context.channel.syncOptions?.setOption(.autoRead, value: context.channel.isWritable)
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent {
            context.close(mode: .output, promise: nil)
        } else if case .outputClosed? = event as? ChannelEvent {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
