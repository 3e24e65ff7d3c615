import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import TCPStack
import Testing

/// UDP through a real tunnel, and the contract of its channels.
@Suite(.timeLimit(.minutes(2))) struct DatagramChannelTests {
    typealias Envelope = AddressedEnvelope<ByteBuffer>

    /// Sends every datagram back to where it came from.
    final class Echo: ChannelInboundHandler, Sendable {
        typealias InboundIn = Envelope
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.write(data, promise: nil) }
        func channelReadComplete(context: ChannelHandlerContext) { context.flush() }
    }

    /// Writes down what a pipeline hears.
    final class Recorder: ChannelInboundHandler, Sendable {
        typealias InboundIn = Envelope
        let heard = NIOLockedValueBox<[String]>([])
        let closesOnRead: Bool
        init(closesOnRead: Bool = false) { self.closesOnRead = closesOnRead }
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
            let envelope = unwrapInboundIn(data)
            note("\(envelope.remoteAddress.ipAddress ?? "") \(String(buffer: envelope.data).prefix { $0 != "." })")
            if closesOnRead { context.close(promise: nil) }
        }
        func channelReadComplete(context: ChannelHandlerContext) { note("complete") }
        func channelWritabilityChanged(context: ChannelHandlerContext) { note("writable \(context.channel.isWritable)") }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if let failure = event as? WireGuardDatagramChannel.DeliveryFailure {
                note("failure \(failure.remote.ipAddress ?? ""):\(failure.remote.port ?? 0) \(failure.reason)")
            }
        }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { note("error: \(error)") }
        func channelInactive(context: ChannelHandlerContext) {
            note("inactive")
            context.fireChannelInactive()
        }
        func channelUnregistered(context: ChannelHandlerContext) {
            note("unregistered")
            context.fireChannelUnregistered()
        }

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

    /// Keeps a few datagrams under way and counts what comes back.
    final class Pinger: ChannelInboundHandler, Sendable {
        typealias InboundIn = Envelope
        typealias OutboundOut = ByteBuffer
        let state: NIOLockedValueBox<(sent: Int, received: Int, wrong: Int)>
        let total: Int
        let done: EventLoopPromise<Void>
        init(_ total: Int, done: EventLoopPromise<Void>) {
            self.total = total
            self.done = done
            state = NIOLockedValueBox((0, 0, 0))
        }
        func channelActive(context: ChannelHandlerContext) { send(100, context) }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let number = unwrapInboundIn(data).data.getInteger(at: 0, as: UInt32.self)
            let isDone = state.withLockedValue { state in
                if number != UInt32(state.received) { state.wrong += 1 }
                state.received += 1
                return state.received == total
            }
            if isDone { done.succeed(()) }
            send(1, context)
        }
        func channelReadComplete(context: ChannelHandlerContext) { context.flush() }
        private func send(_ count: Int, _ context: ChannelHandlerContext) {
            for _ in 0..<count {
                let number = state.withLockedValue { state in
                    defer { state.sent += 1 }
                    return state.sent
                }
                guard number < total else { return }
                context.write(wrapOutboundOut(ByteBuffer(integer: UInt32(number))), promise: nil)
            }
            context.flush()
        }
    }

    static func adding(_ handler: any ChannelHandler & Sendable) -> @Sendable (any Channel) -> EventLoopFuture<Void> {
        { channel in channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(handler) } }
    }

    /// A connection is refused: there is a session, and what was sent before has arrived.
    static func roundTrip(_ pair: InterfacePair) async throws {
        await #expect(throws: TunnelError.refused) {
            try await pair.gateway.connect(to: SocketEndpoint(pair.agentEndpoint.address, port: 81)) {
                $0.eventLoop.makeSucceededVoidFuture()
            }.get()
        }
    }

    @Test("a channel that is closed as soon as it opens tells every handler of its end, once")
    func closeOnOpen() async throws {
        let pair = try await InterfacePair(threads: 3)
        let (early, late) = (Recorder(), Recorder())
        let loop = pair.group.next()
        // On the loop: within the promise, not behind it.
        let channel = try await loop.flatSubmit {
            pair.gateway.bindUDP(port: 7, on: loop, initializer: Self.adding(early)).flatMapThrowing { channel in
                #expect(channel.isActive && !early.events.contains("active"))
                try channel.pipeline.syncOperations.addHandler(late)
                channel.close(promise: nil)
                return channel
            }
        }.get()
        try await channel.closeFuture.get()
        #expect(early.events == ["registered", "active", "inactive", "unregistered"])
        #expect(late.events == ["active", "inactive", "unregistered"])
        try await pair.shutdown()
    }

    @Test("10,000 small datagrams are echoed in order", arguments: [(1, IPAddress.Family.v4), (1, .v6), (4, .v4), (4, .v6)])
    func echo(threads: Int, family: IPAddress.Family) async throws {
        let pair = try await InterfacePair(threads: threads, family: family)
        let loop = threads > 1 ? pair.group.next() : nil
        let server = try await pair.agent.bindUDP(port: 7, on: loop, initializer: Self.adding(Echo())).get()
        #expect(server.localAddress?.port == 7 && server.remoteAddress == nil && server.isActive)
        let clientLoop = threads > 1 ? pair.group.next() : pair.gateway.eventLoop
        let done = clientLoop.makePromise(of: Void.self)
        let pinger = Pinger(10_000, done: done)
        let client = try await pair.gateway.connectUDP(
            to: SocketEndpoint(pair.agentEndpoint.address, port: 7), on: clientLoop, initializer: Self.adding(pinger)
        ).get()
        #expect(client.remoteAddress?.port == 7)
        #expect(client.localAddress?.ipAddress == pair.gateway.addresses[0].address.description)
        try await done.futureResult.get()
        let state = pinger.state.withLockedValue { $0 }
        #expect(state.received == 10_000 && state.wrong == 0)
        #expect(try await client.getOption(.bufferedWritableBytes).get() == 0)
        #expect(try await pair.agent.status().get().udpSockets == 1)
        try await client.close()
        try await server.close()
        #expect(try await pair.agent.status().get().udpSockets == 0)
        try await pair.shutdown()
    }

    @Test("a channel hears its life in order, and of nothing after a close", arguments: [1, 3]) func life(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let recorder = Recorder(closesOnRead: true)
        let loop = threads > 1 ? pair.group.next() : nil
        let server = try await pair.agent.bindUDP(port: 7, on: loop, initializer: Self.adding(recorder)).get()
        let client = try await pair.gateway.connectUDP(to: SocketEndpoint(pair.agentEndpoint.address, port: 7)) {
            $0.eventLoop.makeSucceededVoidFuture()
        }.get()
        client.write(ByteBuffer(string: "one"), promise: nil)
        client.write(ByteBuffer(string: "two"), promise: nil)
        client.flush()
        try await server.closeFuture.get()
        #expect(recorder.events == ["registered", "active", "10.1.0.254 one", "inactive", "unregistered"])
        await #expect(throws: ChannelError.alreadyClosed) { try await server.close() }
        await #expect(throws: ChannelError.ioOnClosedChannel) { try await server.writeAndFlush(ByteBuffer(string: "late")) }
        // The port is free again.
        _ = try await pair.agent.bindUDP(port: 7) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        try await pair.shutdown()
    }

    @Test("a closed port is an error on a connected channel, which stays open; elsewhere it is an event", arguments: [1, 3])
    func closedPort(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let (connected, open) = (Recorder(), Recorder())
        let target = SocketEndpoint(pair.agentEndpoint.address, port: 9)
        let loop = threads > 1 ? pair.group.next() : nil
        let first = try await pair.gateway.connectUDP(to: target, on: loop, initializer: Self.adding(connected)).get()
        let second = try await pair.gateway.bindUDP(on: loop, initializer: Self.adding(open)).get()
        // Also the first datagram of the session: it waits for the handshake.
        try await first.writeAndFlush(ByteBuffer(string: "?"))
        try await connected.waits(for: "error: \(TunnelError.unreachable)", on: first.eventLoop)
        let address = try SocketAddress(ipAddress: target.address.description, port: 9)
        try await second.writeAndFlush(Envelope(remoteAddress: address, data: ByteBuffer(string: "?")))
        try await open.waits(for: "failure 10.1.0.2:9 unreachable", on: second.eventLoop)
        #expect(first.isActive && second.isActive)
        _ = try await pair.agent.bindUDP(port: 9, initializer: Self.adding(Echo())).get()
        try await first.writeAndFlush(ByteBuffer(string: "now"))
        try await connected.waits(for: "10.1.0.2 now", on: first.eventLoop)
        try await pair.shutdown()
    }

    @Test("a datagram that does not fit, a wrong destination and a wrong type fail, and nothing else", arguments: [1, 3])
    func refusals(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let recorder = Recorder()
        let loop = threads > 1 ? pair.group.next() : nil
        _ = try await pair.agent.bindUDP(port: 7, initializer: Self.adding(recorder)).get()
        let client = try await pair.gateway.connectUDP(to: SocketEndpoint(pair.agentEndpoint.address, port: 7), on: loop) {
            $0.eventLoop.makeSucceededVoidFuture()
        }.get()
        let large = client.write(ByteBuffer(repeating: 1, count: 1393))
        let small = client.write(ByteBuffer(string: "small"))
        client.flush()
        await #expect(throws: TunnelError.messageTooLarge(limit: 1392)) { try await large.get() }
        try await small.get()
        try await recorder.waits(for: "10.1.0.254 small", on: pair.agent.eventLoop)
        let other = try SocketAddress(ipAddress: "10.1.0.2", port: 8)
        await #expect(throws: TunnelError.self) { try await client.writeAndFlush(Envelope(remoteAddress: other, data: ByteBuffer())) }
        await #expect(throws: ChannelError.operationUnsupported) { try await client.writeAndFlush("text") }
        await #expect(throws: ChannelError.operationUnsupported) { try await client.close(mode: .output) }
        let six = try SocketAddress(ipAddress: "fd00::2", port: 8)
        let open = try await pair.gateway.bindUDP { $0.eventLoop.makeSucceededVoidFuture() }.get()
        await #expect(throws: TunnelError.noSourceAddress) {
            try await open.writeAndFlush(Envelope(remoteAddress: six, data: ByteBuffer()))
        }
        await #expect(throws: TunnelError.unavailable("portInUse")) {
            try await pair.agent.bindUDP(port: 7) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        }
        try await pair.shutdown()
    }

    @Test("above the high mark a channel is not writable; a writer that does not look is stopped", arguments: [1, 3])
    func backPressure(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let recorder = Recorder()
        let loop = threads > 1 ? pair.group.next() : nil
        let client = try await pair.gateway.connectUDP(
            to: SocketEndpoint(pair.agentEndpoint.address, port: 7), on: loop, initializer: Self.adding(recorder)
        ).get()
        let outcomes = try await client.eventLoop.submit {
            var outcomes: [EventLoopFuture<Void>] = []
            for number in 0..<5000 {
                outcomes.append(client.write(ByteBuffer(repeating: 1, count: 1000)))
                if number == 300 { #expect(!client.isWritable) }
            }
            client.flush()
            return outcomes
        }.get()
        var (taken, refused) = (0, 0)
        for outcome in outcomes {
            do {
                try await outcome.get()
                taken += 1
            } catch TunnelError.queueFull { refused += 1 }
        }
        #expect(taken == WireGuardDatagramChannel.maximumBufferedBytes / 1128 && taken + refused == 5000)
        #expect(client.isWritable)
        #expect(recorder.events.filter { $0.hasPrefix("writable") } == ["writable false", "writable true"])
        try await pair.shutdown()
    }

    @Test("without auto-read datagrams wait in the stack, and a read gives so many", arguments: [1, 3]) func reads(threads: Int)
        async throws
    {
        let pair = try await InterfacePair(threads: threads)
        let recorder = Recorder()
        let loop = threads > 1 ? pair.group.next() : pair.agent.eventLoop
        var options = UDPOptions()
        options.receiveBufferMaximum = 1
        let server = try await pair.agent.bindUDP(port: 7, options: options, on: loop) { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.syncOptions?.setOption(.autoRead, value: false)
                try channel.syncOptions?.setOption(.maxMessagesPerRead, value: 2)
                try channel.pipeline.syncOperations.addHandler(recorder)
            }
        }.get()
        let client = try await pair.gateway.connectUDP(to: SocketEndpoint(pair.agentEndpoint.address, port: 7)) {
            $0.eventLoop.makeSucceededVoidFuture()
        }.get()
        try await Self.roundTrip(pair)
        // 65 of 1,000 bytes are what the smallest queue holds.
        for round in 0..<4 {
            for number in 0..<20 {
                let text = "\(round * 20 + number)"
                client.write(ByteBuffer(string: text + String(repeating: ".", count: 1000 - text.count)), promise: nil)
            }
            client.flush()
            try await Self.roundTrip(pair)
        }
        let drops = try await pair.agent.status().get().drops
        #expect(drops.contains { $0.reason == "tcp/ip receiveQueueFull" && $0.count == 15 })
        #expect(recorder.events == ["registered", "active"])
        try await loop.submit {
            server.read()
            server.read()
        }.get()
        try await recorder.waits(for: "complete", on: loop)
        #expect(recorder.events.dropFirst(2) == ["10.1.0.254 0", "10.1.0.254 1", "complete"])
        #expect(try await server.getOption(.maxMessagesPerRead).get() == 2)
        try await server.setOption(.autoRead, value: true).get()
        try await recorder.waits(for: "10.1.0.254 64", on: loop)
        try await pair.shutdown()
    }

    @Test("asynchronous channels run over it unchanged") func asynchronous() async throws {
        let pair = try await InterfacePair()
        _ = try await pair.agent.bindUDP(port: 7, initializer: Self.adding(Echo())).get()
        let client = try await pair.gateway.connectUDP(to: SocketEndpoint(pair.agentEndpoint.address, port: 7)) {
            $0.eventLoop.makeSucceededVoidFuture()
        }.flatMapThrowing { try NIOAsyncChannel<Envelope, ByteBuffer>(wrappingChannelSynchronously: $0) }.get()
        try await client.executeThenClose { inbound, outbound in
            var datagrams = inbound.makeAsyncIterator()
            for number in 0..<50 {
                try await outbound.write(ByteBuffer(string: "\(number)"))
                let answer = try await datagrams.next()
                #expect(answer.map { String(buffer: $0.data) } == "\(number)")
            }
        }
        try await pair.shutdown()
    }

    @Test("an answer leaves from the address that the question went to") func multihomed() async throws {
        let pair = try await InterfacePair()
        let second = try #require(InterfaceAddress("10.1.0.3/24"))
        let first = pair.agent.addresses[0]
        try await pair.agent.setAddresses([first, second]).get()
        try await pair.gateway.setPeer(
            .init(publicKey: pair.agent.publicKey, allowedIPs: [IPPrefix(host: first.address), IPPrefix(host: second.address)])
        ).get()
        // The gateway does not know where the agent is until it has heard of it.
        let hello = try await pair.agent.connectUDP(to: SocketEndpoint(pair.gateway.addresses[0].address, port: 9)) {
            $0.eventLoop.makeSucceededVoidFuture()
        }.get()
        try await hello.writeAndFlush(ByteBuffer(string: "hello"))
        _ = try await pair.agent.bindUDP(port: 7, initializer: Self.adding(Echo())).get()
        for address in [first, second] {
            let recorder = Recorder()
            let client = try await pair.gateway.connectUDP(
                to: SocketEndpoint(address.address, port: 7), initializer: Self.adding(recorder)
            ).get()
            try await client.writeAndFlush(ByteBuffer(string: "ping"))
            try await recorder.waits(for: "\(address.address) ping", on: client.eventLoop)
        }
        try await pair.shutdown()
    }

    @Test("a removed peer ends its connected channels; a closed interface ends all", arguments: [1, 3])
    func ends(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let (connected, open) = (Recorder(), Recorder())
        let loop = threads > 1 ? pair.group.next() : nil
        let first = try await pair.gateway.connectUDP(
            to: SocketEndpoint(pair.agentEndpoint.address, port: 7), on: loop, initializer: Self.adding(connected)
        ).get()
        let second = try await pair.gateway.bindUDP(port: 7, on: loop, initializer: Self.adding(open)).get()
        let waiting = first.write(ByteBuffer(string: "never"))
        try await pair.gateway.removePeer(pair.agent.publicKey).get()
        try await first.closeFuture.get()
        await #expect(throws: TunnelError.aborted) { try await waiting.get() }
        #expect(connected.events.suffix(3) == ["error: \(TunnelError.aborted)", "inactive", "unregistered"])
        #expect(second.isActive)
        try await pair.gateway.close().get()
        #expect(!second.isActive)
        #expect(open.events.suffix(3) == ["error: \(TunnelError.interfaceClosed)", "inactive", "unregistered"])
        await #expect(throws: TunnelError.interfaceClosed) {
            try await pair.gateway.bindUDP { $0.eventLoop.makeSucceededVoidFuture() }.get()
        }
        try await pair.shutdown()
    }

    @Test("200 channels come and go, and every one is let go", arguments: [1, 4]) func letGo(threads: Int) async throws {
        let pair = try await InterfacePair(threads: threads)
        let server = try await pair.agent.bindUDP(port: 7, initializer: Self.adding(Echo())).get()
        var channels: [ChannelTests.WeakChannel] = []
        for _ in 0..<200 {
            let recorder = Recorder()
            let channel = try await pair.gateway.connectUDP(
                to: SocketEndpoint(pair.agentEndpoint.address, port: 7), on: threads > 1 ? pair.group.next() : nil,
                initializer: Self.adding(recorder)
            ).get()
            try await channel.writeAndFlush(ByteBuffer(string: "x"))
            try await recorder.waits(for: "10.1.0.2 x", on: channel.eventLoop)
            try await channel.close()
            channels.append(ChannelTests.WeakChannel(channel))
        }
        #expect(try await pair.gateway.status().get().udpSockets == 0)
        try await server.close()
        try await pair.shutdown()
        #expect(channels.filter { $0.channel != nil }.isEmpty)
    }
}
