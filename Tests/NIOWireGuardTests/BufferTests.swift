import NIOConcurrencyHelpers
import NIOCore
import NIOWireGuard
import Testing

/// Bytes are not copied between the stack and the channels: nobody may see another's.
@Suite(.timeLimit(.minutes(1))) struct BufferTests {
    /// Keeps every buffer, and scribbles into every fourth one.
    private final class Hoarder: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = ByteBuffer
        private(set) var buffers: [ByteBuffer] = []
        private var received = 0
        private let total: Int
        let done: EventLoopPromise<Void>

        init(_ total: Int, _ done: EventLoopPromise<Void>) { (self.total, self.done) = (total, done) }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let buffer = unwrapInboundIn(data)
            buffers.append(buffer)
            received += buffer.readableBytes
            if buffers.count % 4 == 0 {
                var mine = buffer
                mine.setRepeatingByte(0xEE, count: mine.readableBytes, at: mine.readerIndex)
                mine.writeRepeatingByte(0xDD, count: 5000)
            }
            if received == total { done.succeed() }
        }

        func channelInactive(context: ChannelHandlerContext) { done.fail(ChannelError.eof) }
    }

    @Test("buffers that a handler keeps stay as they are, and what is changed after it was written is sent as it was")
    func kept() async throws {
        let pair = try await InterfacePair()
        let total = 2_000_000
        let done = pair.agent.eventLoop.makePromise(of: Void.self)
        let hoarder = Hoarder(total, done)
        _ = try await pair.agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(hoarder) }
        }.get()
        let channel = try await pair.gateway.dial(pair.agentEndpoint)
        var offset = 0
        while offset < total {
            let count = min(total - offset, [100, 5000, 70_000][offset % 3])
            var buffer = ByteBuffer(bytes: (offset..<offset + count).map(Self.byte))
            channel.write(buffer, promise: nil)
            // The writer's own copy; what was written stays.
            buffer.setRepeatingByte(0x77, count: count, at: 0)
            offset += count
            if offset % 7 == 0 { try await channel.writeAndFlush(ByteBuffer()) }
        }
        channel.flush()
        try await done.futureResult.get()
        let received = try await pair.agent.eventLoop.submit { hoarder.buffers.flatMap { Array($0.readableBytesView) } }.get()
        #expect(received.count == total)
        #expect(received.indices.allSatisfy { received[$0] == Self.byte($0) })
        try await channel.close()
        try await pair.shutdown()
    }

    /// Keeps every buffer.
    private final class Collector: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = ByteBuffer
        private(set) var buffers: [ByteBuffer] = []
        private let total: Int
        let done: EventLoopPromise<Void>

        init(_ total: Int, _ done: EventLoopPromise<Void>) { (self.total, self.done) = (total, done) }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            buffers.append(unwrapInboundIn(data))
            if buffers.reduce(0, { $0 + $1.readableBytes }) == total { done.succeed() }
        }
    }

    @Test("a few bytes keep little memory, also behind many") func small() async throws {
        let pair = try await InterfacePair()
        let many = 500_000
        let done = pair.agent.eventLoop.makePromise(of: Void.self)
        let collector = Collector(many + 200, done)
        _ = try await pair.agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(collector) }
        }.get()
        let channel = try await pair.gateway.dial(pair.agentEndpoint)
        try await channel.writeAndFlush(ByteBuffer(repeating: 1, count: many))
        for _ in 0..<200 { try await channel.writeAndFlush(ByteBuffer(integer: UInt8(1))) }
        try await done.futureResult.get()
        let held = try await pair.agent.eventLoop.submit { collector.buffers.map { ($0.readableBytes, $0.storageCapacity) } }.get()
        for (bytes, capacity) in held { #expect(capacity <= 8 * max(bytes, 16), "\(bytes) bytes in \(capacity)") }
        try await channel.close()
        try await pair.shutdown()
    }

    private static func byte(_ position: Int) -> UInt8 { UInt8(truncatingIfNeeded: position &* 131 >> 3) }
}
