// Echoes every TCP byte that arrives at port 7 of the virtual address: TunnelListen wg.conf
import FoundationEssentials
import NIOCore
import NIOPosix
import NIOWireGuard

final class Echo: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.writeAndFlush(data, promise: nil)
    }
}

guard CommandLine.arguments.count == 2 else {
    print("usage: TunnelListen WG-QUICK-FILE")
    exit(2)
}
let file = try String(contentsOfFile: CommandLine.arguments[1], encoding: .utf8)
let interface = try await WireGuardInterface.start(.init(wgQuick: file), on: MultiThreadedEventLoopGroup.singleton.next()).get()
_ = try await interface.listen(port: 7) { channel in
    channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Echo()) }
}.get()
print("echo on \(interface.addresses), UDP port \(interface.listenPort)")
try await interface.eventLoop.makePromise(of: Void.self).futureResult.get()
