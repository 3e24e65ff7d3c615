import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import TCPStack
import Testing

/// The contract of a NIO channel, over a real tunnel.
@Suite(.timeLimit(.minutes(1))) struct ChannelTests {
    /// Writes down what a pipeline hears.
    final class Recorder: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let heard = NIOLockedValueBox<[String]>([])
        let onRead: @Sendable (ChannelHandlerContext) -> Void
        init(onRead: @escaping @Sendable (ChannelHandlerContext) -> Void = { _ in }) { self.onRead = onRead }
        private func note(_ event: String) { heard.withLockedValue { $0.append(event) } }
        var events: [String] { heard.withLockedValue { $0 } }

        func channelRegistered(context: ChannelHandlerContext) {
            note("registered")
            context.fireChannelRegistered()
        }
        func channelActive(context: ChannelHandlerContext) {
            note("active")
            context.fireChannelActive()
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            note("read \(unwrapInboundIn(data).readableBytes)")
            onRead(context)
        }
        func channelReadComplete(context: ChannelHandlerContext) { note("complete") }
        func channelWritabilityChanged(context: ChannelHandlerContext) { note("writable \(context.channel.isWritable)") }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) { note("event \(event)") }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { note("error: \(error)") }
        func channelInactive(context: ChannelHandlerContext) {
            note("inactive")
            context.fireChannelInactive()
        }
        func channelUnregistered(context: ChannelHandlerContext) {
            note("unregistered")
            context.fireChannelUnregistered()
        }
    }

    /// A tunnel with one connection: `near` is the gateway's end.
    struct Connected {
        let pair: InterfacePair
        let near: any Channel
        let far: any Channel

        init(
            threads: Int = 1, far farHandler: any ChannelHandler & Sendable = Recorder(),
            near nearHandler: any ChannelHandler & Sendable = Recorder(),
            halfClosure: Bool = true
        ) async throws {
            let pair = try await InterfacePair(threads: threads)
            let accepted = pair.agent.eventLoop.makePromise(of: (any Channel).self)
            _ = try await pair.agent.listen(port: 80, group: threads > 1 ? pair.group : nil) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: halfClosure)
                    try channel.pipeline.syncOperations.addHandler(farHandler)
                    accepted.succeed(channel)
                }
            }.get()
            near = try await pair.gateway.dial(pair.agentEndpoint, on: threads > 1 ? pair.group.next() : nil) { channel in
                try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: halfClosure)
                try channel.pipeline.syncOperations.addHandler(nearHandler)
            }
            far = try await accepted.futureResult.get()
            self.pair = pair
        }
    }

    @Test("an accepted channel knows both addresses before its handlers are added", arguments: [1, 3])
    func addressesOfAccepted(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let seen = pair.agent.eventLoop.makePromise(of: [SocketAddress?].self)
        _ = try await pair.agent.listen(port: 80, group: threads > 1 ? pair.group : nil) { channel in
            seen.succeed([channel.localAddress, channel.remoteAddress])
            return channel.eventLoop.makeSucceededVoidFuture()
        }.get()
        let near = try await pair.gateway.dial(pair.agentEndpoint)
        #expect(try await seen.futureResult.get() == [near.remoteAddress, near.localAddress])
        #expect(near.remoteAddress?.ipAddress == "10.1.0.2" && near.remoteAddress?.port == 80)
        try await pair.shutdown()
    }

    @Test("options are what was set; unknown ones throw")
    func options() async throws {
        let tunnel = try await Connected()
        let channel = tunnel.near
        let mark = ChannelOptions.Types.WriteBufferWaterMark(low: 1, high: 2)
        try await channel.setOption(.writeBufferWaterMark, value: mark).get()
        let known = try await channel.getOption(.writeBufferWaterMark).get()
        #expect(known.low == 1 && known.high == 2)
        try await channel.setOption(.allowRemoteHalfClosure, value: false).get()
        #expect(try await channel.getOption(.allowRemoteHalfClosure).get() == false)
        try await channel.setOption(.autoRead, value: false).get()
        #expect(try await channel.getOption(.autoRead).get() == false)
        #expect(try await channel.getOption(.maxMessagesPerRead).get() == 1)
        #expect(try await channel.getOption(.bufferedWritableBytes).get() == 0)
        await #expect(throws: ChannelError.operationUnsupported) { try await channel.setOption(.tcpOption(.tcp_nodelay), value: 1).get() }
        await #expect(throws: ChannelError.operationUnsupported) { try await channel.getOption(.backlog).get() }
        #expect(channel.remoteAddress?.port == 80 && channel.localAddress?.ipAddress == "10.1.0.254")
        try await tunnel.pair.shutdown()
    }

    @Test("an accepted connection hears its life in order", arguments: [1, 3])
    func lifeInOrder(threads: Int) async throws {
        let recorder = Recorder()
        let tunnel = try await Connected(threads: threads, far: recorder)
        try await tunnel.near.writeAndFlush(ByteBuffer(string: "hello"))
        try await tunnel.near.close(mode: .output)
        try await recorder.waits(for: "event inputClosed", on: tunnel.far.eventLoop)
        #expect(recorder.events.prefix(5) == ["registered", "active", "read 5", "complete", "event inputClosed"])
        try await tunnel.far.close()
        #expect(recorder.events.suffix(2) == ["inactive", "unregistered"])
        try await tunnel.near.closeFuture.get()
        try await tunnel.pair.shutdown()
    }

    @Test("an aborted connection is a reset for the other end, behind the data that came before", arguments: [1, 3])
    func abort(threads: Int) async throws {
        let recorder = Recorder()
        let tunnel = try await Connected(threads: threads, far: recorder)
        try await tunnel.near.writeAndFlush(ByteBuffer(string: "last words"))
        try await recorder.waits(for: "read 10", on: tunnel.far.eventLoop)
        try await tunnel.near.triggerUserOutboundEvent(WireGuardChannel.AbortEvent()).get()
        await #expect(throws: ChannelError.self) {
            try await tunnel.near.triggerUserOutboundEvent(WireGuardChannel.AbortEvent()).get()
        }
        try await tunnel.far.closeFuture.get()
        #expect(recorder.events.suffix(4) == ["complete", "error: \(TunnelError.reset)", "inactive", "unregistered"])
        try await tunnel.pair.shutdown()
    }

    @Test("after a close nothing works any more and says so")
    func afterClose() async throws {
        let tunnel = try await Connected()
        let channel = tunnel.near
        try await channel.close(mode: .output)
        await #expect(throws: ChannelError.outputClosed) { try await channel.writeAndFlush(ByteBuffer(string: "late")) }
        await #expect(throws: ChannelError.outputClosed) { try await channel.close(mode: .output) }
        await #expect(throws: ChannelError.operationUnsupported) { try await channel.close(mode: .input) }
        try await channel.close()
        #expect(!channel.isActive)
        await #expect(throws: (any Error).self) { try await channel.writeAndFlush(ByteBuffer(string: "later")) }
        await #expect(throws: ChannelError.alreadyClosed) { try await channel.close() }
        try await tunnel.pair.shutdown()
    }

    @Test("a close between write and flush fails the write")
    func closeFailsWrites() async throws {
        let tunnel = try await Connected()
        let written = tunnel.near.write(ByteBuffer(string: "never"))
        try await tunnel.near.close()
        await #expect(throws: ChannelError.ioOnClosedChannel) { try await written.get() }
        try await tunnel.pair.shutdown()
    }

    @Test("a handler that closes while it reads hears of no read afterwards")
    func closeInRead() async throws {
        let recorder = Recorder { context in context.close(promise: nil) }
        let tunnel = try await Connected(far: recorder)
        try await tunnel.near.writeAndFlush(ByteBuffer(string: "x"))
        try await tunnel.far.closeFuture.get()
        #expect(recorder.events == ["registered", "active", "read 1", "inactive", "unregistered"])
        try await tunnel.pair.shutdown()
    }

    /// Each write begins in the promise of the one before.
    final class ChainedWriter: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let left: NIOLockedValueBox<Int>
        let done: EventLoopPromise<Void>
        init(_ count: Int, done: EventLoopPromise<Void>) {
            left = NIOLockedValueBox(count)
            self.done = done
        }
        func channelActive(context: ChannelHandlerContext) { next(context.channel) }
        func next(_ channel: any Channel) {
            let isLast = left.withLockedValue { left in
                left -= 1
                return left < 0
            }
            if isLast { return done.succeed(()) }
            let promise = channel.eventLoop.makePromise(of: Void.self)
            promise.futureResult.whenSuccess { self.next(channel) }
            channel.writeAndFlush(ByteBuffer(integer: UInt8(7)), promise: promise)
        }
    }

    @Test("20,000 writes, each from the promise of the one before, do not pile up on the stack")
    func chainedWrites() async throws {
        let pair = try await InterfacePair()
        _ = try await pair.agent.listen(port: 80) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        let done = pair.gateway.eventLoop.makePromise(of: Void.self)
        _ = try await pair.gateway.dial(pair.agentEndpoint) { channel in
            try channel.pipeline.syncOperations.addHandler(ChainedWriter(20_000, done: done))
        }
        try await done.futureResult.get()
        try await pair.shutdown()
    }

    @Test("a channel that is closed as soon as it connects tells every handler of its end, once", arguments: [1, 3], [false, true])
    func closeOnConnect(threads: Int, aborts: Bool) async throws {
        let pair = try await InterfacePair(threads: threads)
        _ = try await pair.agent.listen(port: 80) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        let early = Recorder()
        // It comes when the channel is active: all that it will ever hear is the end.
        let late = Recorder()
        let removed = NIOLockedValueBox(0)
        let loop = threads > 1 ? pair.group.next() : pair.gateway.eventLoop
        // On the loop: within the connect's promise, not behind it.
        let channel = try await loop.flatSubmit {
            pair.gateway.connect(to: pair.agentEndpoint, options: .patient, on: loop) { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandlers(early, Leaver(removed)) }
            }.flatMapThrowing { channel in
                #expect(channel.isActive && !early.events.contains("active"))
                try channel.pipeline.syncOperations.addHandlers(late, Leaver(removed))
                if aborts {
                    channel.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(), promise: nil)
                } else {
                    channel.close(promise: nil)
                }
                #expect(!channel.isActive)
                return channel
            }
        }.get()
        try await channel.closeFuture.get()
        #expect(early.events == ["registered", "active", "inactive", "unregistered"])
        #expect(late.events == ["active", "inactive", "unregistered"])
        #expect(removed.withLockedValue { $0 } == 2)
        try await pair.shutdown()
    }

    /// Counts how often a handler left its pipeline.
    final class Leaver: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let removed: NIOLockedValueBox<Int>
        init(_ removed: NIOLockedValueBox<Int>) { self.removed = removed }
        func handlerRemoved(context: ChannelHandlerContext) { removed.withLockedValue { $0 += 1 } }
    }

    @Test("without auto-read a channel gives one buffer for each read, also of what came before", arguments: [1, 3])
    func manualReads(threads: Int) async throws {
        let recorder = Recorder()
        let tunnel = try await Connected(threads: threads, far: recorder)
        try await tunnel.far.setOption(.autoRead, value: false).get()
        try await tunnel.near.writeAndFlush(ByteBuffer(string: "one"))
        // A round trip through the tunnel: the bytes are there.
        try await tunnel.roundTrip()
        #expect(!recorder.events.contains("read 3"))
        try await tunnel.far.eventLoop.submit {
            tunnel.far.read()
            tunnel.far.read()
        }.get()
        try await recorder.waits(for: "read 3", on: tunnel.far.eventLoop)
        try await tunnel.near.writeAndFlush(ByteBuffer(string: "four"))
        try await tunnel.roundTrip()
        #expect(!recorder.events.contains("read 4"))
        tunnel.far.read()
        try await recorder.waits(for: "read 4", on: tunnel.far.eventLoop)
        try await tunnel.near.close(mode: .output).get()
        tunnel.far.read()
        try await recorder.waits(for: "event inputClosed", on: tunnel.far.eventLoop)
        try await tunnel.pair.shutdown()
    }

    @Test("writability follows the water marks, and every write is answered", arguments: [1, 3])
    func writability(threads: Int) async throws {
        let recorder = Recorder()
        let sink = Recorder()
        let tunnel = try await Connected(threads: threads, far: sink, near: recorder)
        try await tunnel.far.setOption(.autoRead, value: false).get()
        let near = tunnel.near
        let size = 12 << 20
        let written = near.eventLoop.flatSubmit {
            let promise = near.writeAndFlush(ByteBuffer(repeating: 1, count: size))
            #expect(!near.isWritable)
            return promise
        }
        #expect(!recorder.events.contains("writable true"))
        try await tunnel.far.setOption(.autoRead, value: true).get()
        try await written.get()
        #expect(near.isWritable)
        #expect(recorder.events.filter { $0.hasPrefix("writable") } == ["writable false", "writable true"])
        #expect(try await near.getOption(.bufferedWritableBytes).get() == 0)
        try await tunnel.pair.shutdown()
    }

    @Test("200 connections at once, pipelines on other loops, and every channel is let go", arguments: [1, 4])
    func manyConnections(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let far = NIOLockedValueBox<[WeakChannel]>([])
        _ = try await pair.agent.listen(port: 80, group: threads > 1 ? pair.group : nil) { channel in
            far.withLockedValue { $0.append(WeakChannel(channel)) }
            return channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler())
            }
        }.get()
        let near = try await withThrowingTaskGroup(of: WeakChannel.self) { tasks in
            for index in 0..<200 {
                tasks.addTask {
                    let loop = threads > 1 ? pair.group.any() : pair.gateway.eventLoop
                    let done = loop.makePromise(of: Void.self)
                    let length = 1_000 + index * 37
                    let channel = try await pair.gateway.dial(pair.agentEndpoint, on: loop) { channel in
                        try channel.pipeline.syncOperations.addHandler(Expect(length, done: done))
                    }
                    try await channel.writeAndFlush(ByteBuffer(repeating: 5, count: length))
                    try await done.futureResult.get()
                    try await channel.close()
                    return WeakChannel(channel)
                }
            }
            return try await tasks.reduce(into: [WeakChannel]()) { $0.append($1) }
        }
        #expect(near.count == 200)
        try await pair.shutdown()
        #expect(near.filter { $0.channel != nil }.isEmpty)
        #expect(far.withLockedValue { $0.count } == 200)
        #expect(far.withLockedValue { $0.filter { $0.channel != nil }.isEmpty })
    }

    struct WeakChannel: @unchecked Sendable {
        weak var channel: (any Channel)?
        init(_ channel: any Channel) { self.channel = channel }
    }

    /// Done after `count` bytes.
    final class Expect: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let left: NIOLockedValueBox<Int>
        let done: EventLoopPromise<Void>
        init(_ count: Int, done: EventLoopPromise<Void>) {
            left = NIOLockedValueBox(count)
            self.done = done
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let count = unwrapInboundIn(data).readableBytes
            if left.withLockedValue({
                $0 -= count
                return $0 == 0
            }) {
                done.succeed(())
            }
        }
        func channelInactive(context: ChannelHandlerContext) { done.fail(ChannelError.eof) }
    }
}

extension ChannelTests.Connected {
    /// A second connection comes up and down: what was sent before has arrived, on one loop.
    func roundTrip() async throws {
        let other = try await pair.gateway.dial(pair.agentEndpoint)
        try await other.close()
    }
}

extension ChannelTests.Recorder {
    /// Returns when `event` has been heard.
    func waits(for event: String, on loop: any EventLoop) async throws {
        let heard = loop.makePromise(of: Void.self)
        let task = loop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(1)) { _ in
            if self.events.contains(event) { heard.succeed(()) }
        }
        try await heard.futureResult.get()
        task.cancel()
    }
}
