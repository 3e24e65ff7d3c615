import Inet
import NIOCore
import NIOExtras
import NIOPosix
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

    @Test("a target that has answered and gone: the answer is whole, what is still sent is thrown away")
    func originGone() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        origin.write("done")
        origin.channel.writeAndFlush(ByteBuffer()).whenComplete { _ in origin.close() }
        #expect(try await client.see { $0.isInputClosed }.text == "done")
        client.write(megabytes: 4)
        client.closeOutput()
        #expect(try await !client.see { $0.isClosed }.hasFailed)
        try await tunnel.shutdown()
    }

    @Test("a reset goes through, either way", arguments: [true, false])
    func reset(byOrigin: Bool) async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        client.write("a")
        _ = try await origin.see { $0.count == 1 }
        if byOrigin {
            origin.reset()
            #expect(try await client.see { $0.isClosed }.hasFailed)
        } else {
            client.reset()
            #expect(try await origin.see { $0.isClosed }.hasFailed)
        }
        try await tunnel.shutdown()
    }

    @Test("a reset does not overtake the answer before it")
    func lastWords() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        client.write("a")
        _ = try await origin.see { $0.count == 1 }
        origin.write("413")
        origin.reset()
        let seen = try await client.see { $0.isClosed }
        #expect(seen.text == "413" && seen.hasFailed)
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
        try await tunnel.shutdown()
    }

    @Test("a gateway that is gone before the target answers leaves nothing behind")
    func goneMeanwhile() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let dial = OriginDialer.connector(halfClosure: true)
        let tunnel = try await TunnelFixture { target, loop in
            dial(target, loop).flatMap { channel in gate.futureResult.hop(to: loop).map { channel } }
        }
        let (client, origin) = try await tunnel.join()
        var accepted = tunnel.accepted.makeAsyncIterator()
        let inTunnel = try #require(await accepted.next())
        client.write("a")
        client.reset()
        try await inTunnel.closeFuture.get()
        gate.succeed()
        #expect(try await origin.see { $0.isClosed }.count == 0)
        try await tunnel.shutdown()
    }

    @Test("who does not read is not sent more than the buffers on the way hold")
    func backPressure() async throws {
        let tunnel = try await TunnelFixture()
        let (client, origin) = try await tunnel.join()
        try await client.channel.setOption(.autoRead, value: false).get()
        // A client that may read one buffer more has one more read under way.
        let written = origin.write(megabytes: 96)
        var accepted = tunnel.accepted.makeAsyncIterator()
        let inTunnel = try #require(await accepted.next())
        // It becomes unwritable, and stays so.
        var quiet = 0
        while quiet < 20 {
            quiet = inTunnel.isWritable ? 0 : quiet + 1
            try await inTunnel.eventLoop.scheduleTask(in: .milliseconds(10)) {}.futureResult.get()
        }
        let waiting = try await origin.channel.getOption(.bufferedWritableBytes).get()
        #expect(waiting > 16 << 20)
        try await client.channel.setOption(.autoRead, value: true).get()
        try await written.get()
        #expect(try await client.see { $0.count == 96 << 20 }.count == 96 << 20)
        try await tunnel.shutdown()
    }

    @Test("on the way down an idle relay ends, one whose request is in hand waits for the answer")
    func drain() async throws {
        let tunnel = try await TunnelFixture()
        var accepted = tunnel.accepted.makeAsyncIterator()
        let idle = try await tunnel.join()
        let idleInTunnel = try #require(await accepted.next())
        let busy = try await tunnel.join()
        let busyInTunnel = try #require(await accepted.next())
        busy.client.write("request")
        _ = try await busy.origin.see { $0.count == 7 }
        for channel in [idleInTunnel, busyInTunnel] { channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent()) }
        #expect(try await !idle.client.see { $0.isInputClosed }.hasFailed)
        _ = try await idle.origin.see { $0.isInputClosed }
        #expect(busyInTunnel.isActive)
        busy.origin.write("answer")
        #expect(try await busy.client.see { $0.isInputClosed }.text == "answer")
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
    }
}
