import BenchShim
import Inet
import NIOCore
import NIOPosix
import NIOWireGuard

/// What it costs to send 44 datagrams of 1,452 bytes to a socket of loopback that nobody reads: by our own system calls on the
/// descriptor that NIO has adopted, and by NIO.
enum UDPMicro {
    static func run() {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        do {
            let sink = try DatagramBootstrap(group: group).channelOption(.autoRead, value: false).bind(host: "127.0.0.1", port: 0).wait()
            guard let port = sink.localAddress?.port else { return print("the sink has no port") }
            try own(group.next(), UInt16(port))
            try nio(group.next(), port)
            try sink.close().wait()
        } catch { print("udp: \(error)") }
    }

    private static func own(_ loop: any EventLoop, _ port: UInt16) throws {
        let target = SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: port)
        let sockets = UDPSockets(eventLoop: loop)
        try loop.flatSubmit { sockets.bind(port: 0, handlers: .init(receive: { _, _ in })) }.wait()
        let bytes = [UInt8](repeating: 7, count: count * size)
        try report("udp-own-segment", on: loop) {
            bytes.withUnsafeBytes { sockets.send($0, Departure(to: target, segmentSize: size)) }
        }
        try report("udp-own-each", on: loop) {
            for _ in 0..<count {
                bytes.withUnsafeBytes { sockets.send(UnsafeRawBufferPointer(rebasing: $0[..<size]), Departure(to: target)) }
            }
        }
        try loop.flatSubmit { sockets.close() }.wait()
    }

    private static func nio(_ loop: any EventLoop, _ port: Int) throws {
        let channel = try DatagramBootstrap(group: loop).bind(host: "127.0.0.1", port: 0).wait()
        let target = try SocketAddress(ipAddress: "127.0.0.1", port: port)
        let (all, one) = (ByteBuffer(repeating: 7, count: count * size), ByteBuffer(repeating: 7, count: size))
        try report("udp-nio-segment", on: loop) {
            let metadata = AddressedEnvelope<ByteBuffer>.Metadata(ecnState: .transportNotCapable, packetInfo: nil, segmentSize: size)
            channel.writeAndFlush(AddressedEnvelope(remoteAddress: target, data: all, metadata: metadata), promise: nil)
        }
        try report("udp-nio-each", on: loop) {
            for _ in 0..<count { channel.write(AddressedEnvelope(remoteAddress: target, data: one), promise: nil) }
            channel.flush()
        }
        try channel.close().wait()
    }

    private static func report(_ name: String, on loop: any EventLoop, _ body: @escaping @Sendable () -> Void) throws {
        let cost = try loop.submit {
            var best = Cost()
            for _ in 0..<Micro.rounds {
                var cost = Cost()
                cost.measure {
                    for _ in 0..<repetitions { body() }
                    return repetitions * count
                }
                best = best.better(cost)
            }
            return best
        }.wait()
        cost.report(name, "a datagram")
    }

    private static let size = 1452
    /// As many as fit into one super-datagram.
    private static let count = 44
    private static let repetitions = 500
}
