import NIOCore
import NIOEmbedded
import Proxy
import Testing

@Suite struct FarewellGateTests {
    private let loop = EmbeddedEventLoop()

    private func channel() throws -> EmbeddedChannel {
        let channel = EmbeddedChannel(handler: FarewellGate(), loop: loop)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        return channel
    }

    private func sent(_ channel: EmbeddedChannel) throws -> String {
        var text = ""
        while let bytes = try channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
        return text
    }

    @Test("what is flushed while it holds leaves when output is closed, before the close")
    func close() throws {
        let channel = try channel()
        channel.writeAndFlush(ByteBuffer(string: "a"), promise: nil)
        #expect(try sent(channel) == "a")
        channel.triggerUserOutboundEvent(FarewellGate.Hold(), promise: nil)
        channel.writeAndFlush(ByteBuffer(string: "b"), promise: nil)
        channel.writeAndFlush(ByteBuffer(string: "c"), promise: nil)
        #expect(try sent(channel) == "")
        channel.close(promise: nil)
        #expect(try sent(channel) == "bc")
    }

    @Test("it holds for one turn at most, and no longer for who goes on")
    func turn() throws {
        let channel = try channel()
        channel.triggerUserOutboundEvent(FarewellGate.Hold(), promise: nil)
        channel.writeAndFlush(ByteBuffer(string: "b"), promise: nil)
        #expect(try sent(channel) == "")
        loop.run()
        #expect(try sent(channel) == "b")
        channel.writeAndFlush(ByteBuffer(string: "c"), promise: nil)
        #expect(try sent(channel) == "c")
    }

    @Test("a reset goes past whoever would say farewell first")
    func reset() throws {
        let channel = try channel()
        final class Farewell: ChannelOutboundHandler {
            typealias OutboundIn = ByteBuffer
            typealias OutboundOut = ByteBuffer
            func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
                context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "bye")), promise: nil)
                context.close(mode: mode, promise: promise)
            }
        }
        try channel.pipeline.syncOperations.addHandler(Farewell())
        channel.triggerUserOutboundEvent(FarewellGate.Reset(), promise: nil)
        #expect(!channel.isActive)
        #expect(try sent(channel) == "")
    }

    @Test("other events pass, and a channel that is gone meanwhile does no harm")
    func others() throws {
        let channel = try channel()
        let promise = loop.makePromise(of: Void.self)
        channel.triggerUserOutboundEvent("other", promise: promise)
        #expect(throws: (any Error).self) { try promise.futureResult.wait() }
        channel.triggerUserOutboundEvent(FarewellGate.Hold(), promise: nil)
        channel.close(promise: nil)
        loop.run()
    }
}
