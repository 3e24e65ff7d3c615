// Sends an HTTP request through WireGuard and prints the answer: TunnelDial wg.conf 10.1.0.2:80
// The peer in the file needs an Endpoint: without one it has to begin, and connect gives up after 3 s.
import FoundationEssentials
import Inet
import NIOCore
import NIOPosix
import NIOWireGuard

final class Printer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        print(String(buffer: unwrapInboundIn(data)), terminator: "")
    }
}

guard CommandLine.arguments.count == 3, let remote = SocketEndpoint(CommandLine.arguments[2]) else {
    print("usage: TunnelDial WG-QUICK-FILE VIRTUAL-IP:PORT")
    exit(2)
}
do {
    let file = try String(contentsOfFile: CommandLine.arguments[1], encoding: .utf8)
    let interface = try await WireGuardInterface.start(.init(wgQuick: file), on: MultiThreadedEventLoopGroup.singleton.next()).get()
    let channel = try await interface.connect(to: remote) { channel in
        channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Printer()) }
    }.get()
    try await channel.writeAndFlush(ByteBuffer(string: "GET / HTTP/1.0\r\nHost: app.example.com\r\n\r\n")).get()
    try await channel.closeFuture.get()
    try await interface.close().get()
} catch {
    print("\(remote): \(error)")
    exit(1)
}
