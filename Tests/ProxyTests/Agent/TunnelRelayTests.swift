import Inet
import NIOCore
import NIOPosix
import NIOWireGuard
import Proxy
import Testing

/// Through a real tunnel on the loopback device, to a real socket.
@Suite(.timeLimit(.minutes(1))) struct TunnelRelayTests {
    @Test("bytes go both ways as they are, HTTP or not")
    func echo() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        client.write("GET / HTTP/1.1\r\nhost : x\r\n\r\n")
        #expect(try await origin.see { $0.count == 28 }.text == "GET / HTTP/1.1\r\nhost : x\r\n\r\n")
        origin.write("\u{1}\u{2}")
        #expect(try await client.see { $0.count == 2 }.text == "\u{1}\u{2}")
        try await tunnel.shutdown()
    }

    @Test("a connection is counted when it has been made, and when it is closed")
    func counts() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        #expect(tunnel.relay.counts == .init(opened: 1))
        var accepted = tunnel.accepted.makeAsyncIterator()
        client.closeOutput()
        origin.closeOutput()
        try await #require(await accepted.next()).closeFuture.get()
        _ = try await origin.see { $0.isClosed }
        // The agent's own end may come a turn later.
        while tunnel.relay.counts.closed == 0 { try await tunnel.agent.eventLoop.submit {}.get() }
        #expect(tunnel.relay.counts == .init(opened: 1, closed: 1))
        try await tunnel.shutdown()
    }

    @Test("a gateway that has said all still hears the whole answer")
    func gatewayClosesFirst() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        client.write(megabytes: 1)
        client.closeOutput()
        #expect(try await origin.see { $0.isInputClosed }.count == 1 << 20)
        origin.write(megabytes: 3)
        origin.closeOutput()
        let seen = try await client.see { $0.isClosed }
        #expect(seen.count == 3 << 20)
        #expect(!seen.hasFailed)
        #expect(try await !origin.see { $0.isClosed }.hasFailed)
        try await tunnel.shutdown()
    }

    @Test("a target that has said all still hears the whole request")
    func originClosesFirst() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        origin.write("early")
        origin.closeOutput()
        #expect(try await client.see { $0.isInputClosed }.text == "early")
        client.write(megabytes: 3)
        client.closeOutput()
        let seen = try await origin.see { $0.isClosed }
        #expect(seen.count == 3 << 20)
        #expect(!seen.hasFailed)
        #expect(try await !client.see { $0.isClosed }.hasFailed)
        try await tunnel.shutdown()
    }

    @Test("both may end at once")
    func bothClose() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        client.write(megabytes: 1)
        origin.write(megabytes: 1)
        client.closeOutput()
        origin.closeOutput()
        for end in [client, origin] {
            let seen = try await end.see { $0.isClosed }
            #expect(seen.count == 1 << 20)
            #expect(!seen.hasFailed)
        }
        try await tunnel.shutdown()
    }

    @Test("a target that has answered and gone: the answer is whole, and whoever goes on sending is reset")
    func originGone() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        origin.write("done")
        origin.channel.writeAndFlush(ByteBuffer()).whenComplete { _ in origin.close() }
        #expect(try await client.see { $0.isInputClosed }.text == "done")
        client.write(megabytes: 4)
        #expect(try await client.see { $0.isClosed }.hasFailed)
        try await tunnel.shutdown()
    }

    @Test("a reset goes through, either way", arguments: [true, false])
    func reset(byOrigin: Bool) async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        if byOrigin {
            origin.reset()
            #expect(try await client.see { $0.isClosed }.hasFailed)
        } else {
            client.reset()
            #expect(try await origin.see { $0.isClosed }.hasFailed)
        }
        try await tunnel.shutdown()
    }

    @Test("a reset does not overtake the answer before it", arguments: [3, 60_000])
    func lastWords(count: Int) async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        // All of it is in the agent's socket before the reset is.
        try await origin.channel.writeAndFlush(ByteBuffer(repeating: 0x61, count: count)).get()
        origin.reset()
        let seen = try await client.see { $0.isClosed }
        #expect(seen.count == count && seen.hasFailed && !seen.isInputClosed)
        try await tunnel.shutdown()
    }

    @Test("an answer that a reset has cut does not look complete, while its request is still being sent")
    func cut() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        client.write(megabytes: 8)
        origin.write(megabytes: 8)
        _ = try await client.see { $0.count > 100_000 }
        origin.reset()
        let seen = try await client.see { $0.isClosed }
        #expect(seen.hasFailed && !seen.isInputClosed)
        try await tunnel.shutdown()
    }

    @Test("a target that refuses is a reset")
    func refused() async throws {
        let tunnel = try await TunnelFixture()
        try await tunnel.closeOrigin()
        let client = try await tunnel.dial()
        client.write("GET / HTTP/1.1\r\n\r\n")
        let seen = try await client.see { $0.isClosed }
        #expect(seen.hasFailed && seen.count == 0)
        #expect(tunnel.relay.counts == .init(refused: 1))
        try await tunnel.shutdown()
    }

    @Test("who says nothing is not taken to the target")
    func silent() async throws {
        let tunnel = try await TunnelFixture()
        let client = try await tunnel.dial()
        client.closeOutput()
        #expect(try await !client.see { $0.isClosed }.hasFailed)
        #expect(tunnel.relay.counts == .init())
        try await tunnel.shutdown()
    }

    @Test("a gateway that is gone before the target answers leaves nothing behind")
    func goneMeanwhile() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let dial = OriginDialer.connector(halfClosure: true)
        let tunnel = try await TunnelFixture(connector: { target, loop in
            dial(target, loop).flatMap { channel in gate.futureResult.hop(to: loop).map { channel } }
        })
        let client = try await tunnel.dial()
        client.write("a")
        var origins = tunnel.origins.makeAsyncIterator()
        let origin = try #require(await origins.next())
        var accepted = tunnel.accepted.makeAsyncIterator()
        let inTunnel = try #require(await accepted.next())
        client.reset()
        try await inTunnel.closeFuture.get()
        gate.succeed()
        #expect(try await origin.see { $0.isClosed }.count == 0)
        try await tunnel.shutdown()
    }

    @Test("who does not read is not sent more than the buffers on the way hold", arguments: [true, false])
    func backPressure(isClientSlow: Bool) async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        let (slow, fast) = isClientSlow ? (client, origin) : (origin, client)
        try await slow.channel.setOption(.autoRead, value: false).get()
        let written = fast.write(megabytes: 96)
        var accepted = tunnel.accepted.makeAsyncIterator()
        let inTunnel = try #require(await accepted.next())
        // What the buffers on the way may hold has left, and nothing more does: the rest stays with the writer however long it takes.
        var (waiting, quiet) = (Int.max, 0)
        while quiet < 20 {
            let now = try await fast.channel.getOption(.bufferedWritableBytes).get()
            quiet = now == waiting ? quiet + 1 : 0
            waiting = now
            try await inTunnel.eventLoop.scheduleTask(in: .milliseconds(10)) {}.futureResult.get()
        }
        #expect(waiting > 16 << 20)
        // The agent's own part of it.
        let held = try await inTunnel.getOption(.bufferedWritableBytes).get()
        #expect(held < 8 << 20)
        try await slow.channel.setOption(.autoRead, value: true).get()
        try await written.get()
        #expect(try await slow.see { $0.count == 96 << 20 }.count == 96 << 20)
        try await tunnel.shutdown()
    }

    @Test("one target for every host is a relay, anything else is HTTP")
    func relayTarget() throws {
        let target = try #require(UpstreamTarget("127.0.0.1:8080"))
        let other = try #require(UpstreamTarget("127.0.0.1:8081"))
        let catchAll = LocalTargets(all: target).catchAll
        func entry(_ target: UpstreamTarget, host: LocalTargets.HostField = .asReceived, enabled: Bool = true) -> LocalTargets {
            LocalTargets(entries: [.init(domain: "a.example.com", target: target, host: host, enabled: enabled)], catchAll: catchAll)
        }
        #expect(LocalTargets(all: target).relayTarget == target)
        #expect(entry(target).relayTarget == target)
        #expect(LocalTargets(all: target, host: .target).relayTarget == nil)
        #expect(entry(other).relayTarget == nil)
        #expect(entry(target, host: .target).relayTarget == nil)
        #expect(entry(target, enabled: false).relayTarget == nil)
        #expect(LocalTargets(entries: entry(target).entries).relayTarget == nil)
        for change: (inout RouteOptions) -> Void in [
            { $0.upstreamProtocol = .h2c }, { $0.responseTimeout = .off }, { $0.upgrades = [] }, { $0.upgradedIdle = .seconds(1) },
        ] {
            var targets = LocalTargets(all: target)
            if var options = targets.catchAll?.options {
                change(&options)
                targets.catchAll?.options = options
            }
            #expect(targets.relayTarget == nil)
        }
    }
}
