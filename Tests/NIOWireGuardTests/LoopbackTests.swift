import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWireGuard
import Noise
import TCPStack
import Testing
import WGUserspace

/// Two interfaces on real UDP sockets of the loopback device.
@Suite(.timeLimit(.minutes(2))) struct LoopbackTests {
    final class EchoHandler: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.write(data, promise: nil) }
        func channelReadComplete(context: ChannelHandlerContext) { context.flush() }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case ChannelEvent.inputClosed? = event as? ChannelEvent { context.close(mode: .output, promise: nil) }
        }
    }

    /// Counts and checks what comes back.
    final class Collector: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let received = NIOLockedValueBox(0)
        let mismatch = NIOLockedValueBox(false)
        let done: EventLoopPromise<Void>
        init(_ done: EventLoopPromise<Void>) { self.done = done }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let buffer = unwrapInboundIn(data)
            let start = received.withLockedValue { value in
                defer { value += buffer.readableBytes }
                return value
            }
            for (index, byte) in buffer.readableBytesView.enumerated() where byte != UInt8(truncatingIfNeeded: (start + index) &* 131 >> 3)
            {
                mismatch.withLockedValue { $0 = true }
            }
        }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case ChannelEvent.inputClosed? = event as? ChannelEvent { done.succeed(()) }
        }
        func channelInactive(context: ChannelHandlerContext) { done.fail(ChannelError.eof) }
    }

    @Test(
        "10 MB echo through the tunnel, half-closed at the end",
        arguments: [(1, IPAddress.Family.v4, TransportCipher.libsodium), (1, .v6, .libsodium), (4, .v4, .libsodium), (1, .v4, .libcrypto)])
    func echo(threads: Int, family: IPAddress.Family, agentCipher: TransportCipher) async throws {
        let pair = try await InterfacePair(threads: threads, family: family, agentCipher: agentCipher)
        _ = try await pair.agent.listen(port: 80, group: threads > 1 ? pair.group : nil) { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
                try channel.pipeline.syncOperations.addHandler(EchoHandler())
            }
        }.get()
        let loop = threads > 1 ? pair.group.next() : pair.gateway.eventLoop
        let done = loop.makePromise(of: Void.self)
        let collector = Collector(done)
        let channel = try await pair.gateway.connect(to: pair.agentEndpoint, on: loop) { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
                try channel.pipeline.syncOperations.addHandler(collector)
            }
        }.get()
        let total = 10_000_000
        var sent = 0
        while sent < total {
            let count = min(100_000, total - sent)
            let bytes = (sent..<sent + count).map { UInt8(truncatingIfNeeded: $0 &* 131 >> 3) }
            try await channel.writeAndFlush(ByteBuffer(bytes: bytes))
            sent += count
        }
        try await channel.close(mode: .output)
        try await done.futureResult.get()
        #expect(collector.received.withLockedValue { $0 } == total)
        #expect(!collector.mismatch.withLockedValue { $0 })
        try await channel.closeFuture.get()
        try await pair.shutdown()
    }

    @Test("a closed port refuses, a silent address times out, a foreign family has no source")
    func failures() async throws {
        let pair = try await InterfacePair()
        let empty: @Sendable (any Channel) -> EventLoopFuture<Void> = { $0.eventLoop.makeSucceededVoidFuture() }
        // The first packet waits for the handshake, so the refusal also shows that the session came up.
        await #expect(throws: TunnelError.refused) {
            try await pair.agent.connect(to: SocketEndpoint(pair.gateway.addresses[0].address, port: 81), initializer: empty).get()
        }
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = .milliseconds(200)
        await #expect(throws: TunnelError.timedOut) {
            try await pair.gateway.connect(
                to: SocketEndpoint(IPAddress(v4: 10, 1, 0, 77), port: 80), options: options, initializer: empty
            ).get()
        }
        await #expect(throws: TunnelError.noSourceAddress) {
            try await pair.gateway.connect(to: #require(SocketEndpoint("[fd00::9]:80")), initializer: empty).get()
        }
        try await pair.shutdown()
    }

    /// Never reads, so the window closes.
    final class Deaf: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
    }

    @Test("a reader that does not read stops the writer: back-pressure crosses the tunnel")
    func backPressure() async throws {
        let pair = try await InterfacePair()
        let accepted = pair.agent.eventLoop.makePromise(of: (any Channel).self)
        _ = try await pair.agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.syncOptions?.setOption(.autoRead, value: false)
                try channel.pipeline.syncOperations.addHandler(Deaf())
                accepted.succeed(channel)
            }
        }.get()
        let channel = try await pair.gateway.connect(to: pair.agentEndpoint) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        let reader = try await accepted.futureResult.get()
        var written = 0
        while channel.isWritable && written < 64 << 20 {
            channel.writeAndFlush(ByteBuffer(repeating: 7, count: 65_536), promise: nil)
            written += 65_536
            // One round trip to the loop, so that what can leave has left.
            try await channel.eventLoop.submit {}.get()
        }
        #expect(!channel.isWritable)
        #expect(written < 32 << 20, "\(written) bytes were taken without a reader")
        let status = try await pair.agent.status().get()
        #expect(status.bufferedBytes < 16 << 20)
        try await reader.setOption(.autoRead, value: true).get()
        try await channel.writeAndFlush(ByteBuffer(string: "the end"))
        try await channel.close()
        try await pair.shutdown()
    }

    final class HTTPServer: ChannelInboundHandler, Sendable {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .end = unwrapInboundIn(data) else { return }
            let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["content-length": "5"])
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: "hello")))), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    @Test("NIO's HTTP codecs run on the channels unchanged")
    func http() async throws {
        let pair = try await InterfacePair()
        _ = try await pair.agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                try channel.pipeline.syncOperations.addHandler(HTTPServer())
            }
        }.get()
        let client = try await pair.gateway.connect(to: pair.agentEndpoint) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHTTPClientHandlers() }
        }.flatMapThrowing { channel in
            try NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>(wrappingChannelSynchronously: channel)
        }.get()
        try await client.executeThenClose { inbound, outbound in
            var parts = inbound.makeAsyncIterator()
            for _ in 0..<3 {
                try await outbound.write(.head(HTTPRequestHead(version: .http1_1, method: .GET, uri: "/", headers: ["host": "a"])))
                try await outbound.write(.end(nil))
                guard case .head(let head)? = try await parts.next() else { throw ChannelError.eof }
                #expect(head.status == .ok)
                guard case .body(let body)? = try await parts.next() else { throw ChannelError.eof }
                #expect(String(buffer: body) == "hello")
                guard case .end? = try await parts.next() else { throw ChannelError.eof }
            }
        }
        try await pair.shutdown()
    }

    @Test(
        "closing the interface ends its connections, the one too whose last ACK it has not seen, and leaves nothing behind",
        .timeLimit(.minutes(1)), arguments: 1...8)
    func closing(attempt: Int) async throws {
        let pair = try await InterfacePair()
        _ = try await pair.agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(EchoHandler()) }
        }.get()
        let channel = try await pair.gateway.connect(to: pair.agentEndpoint) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        try await pair.agent.close().get()
        // The reset reaches the other side.
        try await channel.closeFuture.get()
        await #expect(throws: TunnelError.interfaceClosed) {
            try await pair.agent.connect(to: pair.agentEndpoint) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        }
        try await pair.shutdown()
    }
}
