import NIOConcurrencyHelpers
import NIOCore
import NIOWireGuard
import Testing

/// Resets, and what was written or received before them.
@Suite(.timeLimit(.minutes(1))) struct AbortTests {
    /// Counts what it reads, and keeps what it hears of the end.
    final class Counter: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let bytes = NIOLockedValueBox(0)
        let error = NIOLockedValueBox<TunnelError?>(nil)

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let count = unwrapInboundIn(data).readableBytes
            bytes.withLockedValue { $0 += count }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            self.error.withLockedValue { $0 = error as? TunnelError }
        }
    }

    @Test("a reset that waits comes behind everything that was written", arguments: [1, 3])
    func behind(threads: Int) async throws {
        let (far, near) = (Counter(), Counter())
        let tunnel = try await ChannelTests.Connected(threads: threads, far: far, near: near)
        let size = 5 << 20
        tunnel.near.write(ByteBuffer(repeating: 1, count: size), promise: nil)
        try await tunnel.near.triggerUserOutboundEvent(Self.patient).get()
        await #expect(throws: ChannelError.self) { try await tunnel.near.writeAndFlush(ByteBuffer(string: "more")) }
        try await tunnel.far.closeFuture.get()
        #expect(far.bytes.withLockedValue { $0 } == size)
        #expect(far.error.withLockedValue { $0 } == .reset)
        try await tunnel.near.closeFuture.get()
        #expect(near.error.withLockedValue { $0 } == .aborted)
        try await tunnel.pair.shutdown()
    }

    @Test("behind a FIN, the end of input is heard before the reset")
    func behindFIN() async throws {
        let recorder = ChannelTests.Recorder()
        let tunnel = try await ChannelTests.Connected(far: recorder)
        try await tunnel.near.writeAndFlush(ByteBuffer(string: "done"))
        try await tunnel.near.close(mode: .output)
        try await tunnel.near.triggerUserOutboundEvent(Self.patient).get()
        try await tunnel.far.closeFuture.get()
        let events = recorder.events
        let end = try #require(events.firstIndex(of: "event inputClosed"))
        #expect(try #require(events.firstIndex(of: "read 4")) < end)
        #expect(try #require(events.firstIndex(of: "error: \(TunnelError.reset)")) > end)
        try await tunnel.pair.shutdown()
    }

    @Test("who does not read gets what had come before a reset, and hears of it")
    func unwanted() async throws {
        let far = Counter()
        let tunnel = try await ChannelTests.Connected(far: far)
        try await tunnel.far.setOption(.autoRead, value: false).get()
        let size = 50_000
        tunnel.near.write(ByteBuffer(repeating: 1, count: size), promise: nil)
        try await tunnel.near.triggerUserOutboundEvent(Self.patient).get()
        try await tunnel.far.closeFuture.get()
        #expect(far.bytes.withLockedValue { $0 } == size)
        #expect(far.error.withLockedValue { $0 } == .reset)
        try await tunnel.pair.shutdown()
    }

    @Test("a reset does not wait for a peer that takes nothing more")
    func impatient() async throws {
        let near = Counter()
        let tunnel = try await ChannelTests.Connected(near: near)
        try await tunnel.far.setOption(.autoRead, value: false).get()
        // More than both ends may hold.
        let piece = ByteBuffer(repeating: 1, count: 1 << 20)
        for _ in 0..<64 { tunnel.near.write(piece, promise: nil) }
        try await tunnel.near.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(onceAcknowledgedWithin: .milliseconds(50))).get()
        try await tunnel.near.closeFuture.get()
        #expect(near.error.withLockedValue { $0 } == .aborted)
        try await tunnel.far.closeFuture.get()
        try await tunnel.pair.shutdown()
    }

    @Test("a close while a reset waits is a reset")
    func closed() async throws {
        let far = Counter()
        let tunnel = try await ChannelTests.Connected(far: far)
        try await tunnel.far.setOption(.autoRead, value: false).get()
        let piece = ByteBuffer(repeating: 1, count: 1 << 20)
        for _ in 0..<64 { tunnel.near.write(piece, promise: nil) }
        try await tunnel.near.triggerUserOutboundEvent(Self.patient).get()
        try await tunnel.near.close()
        try await tunnel.far.closeFuture.get()
        #expect(far.error.withLockedValue { $0 } == .reset)
        try await tunnel.pair.shutdown()
    }

    private static let patient = WireGuardChannel.AbortEvent(onceAcknowledgedWithin: .seconds(50))
}
