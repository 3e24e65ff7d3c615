// Echoes every datagram that arrives at UDP port 7 of the virtual addresses: TunnelEchoUDP wg.conf
import FoundationEssentials
import NIOCore
import NIOPosix
import NIOWireGuard

final class Echo: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.writeAndFlush(data, promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let failure = event as? WireGuardDatagramChannel.DeliveryFailure else { return }
        print("not delivered to port \(failure.remote.port ?? 0): \(failure.reason)")
        fflush(nil)
    }
}

guard CommandLine.arguments.count == 2 else {
    print("usage: TunnelEchoUDP WG-QUICK-FILE")
    exit(2)
}
let file = try String(contentsOfFile: CommandLine.arguments[1], encoding: .utf8)
let interface = try await WireGuardInterface.start(.init(wgQuick: file), on: MultiThreadedEventLoopGroup.singleton.next()).get()
_ = try await interface.bindUDP(port: 7) { channel in
    channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Echo()) }
}.get()
print("UDP echo on \(interface.addresses), WireGuard on port \(interface.listenPort)")
try await interface.eventLoop.makePromise(of: Void.self).futureResult.get()
