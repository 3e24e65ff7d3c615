import NIOCore
import NIOPosix
import Proxy
import Synchronization
import Testing

/// An agent's accepted connections, through a real tunnel, while its targets change.
@Suite(.timeLimit(.minutes(1))) struct AgentFrontTests {
    @Test("a relay's target that becomes one of several ends the idle relays; the next connection is one of HTTP")
    func relayToProxy() async throws {
        let (tunnel, front, _) = try await start { LocalTargets(all: $0) }
        let (client, origin) = try await tunnel.join()
        let changes = front.update(LocalTargets(entries: [.init(domain: "a.example.com", target: tunnel.target)]), within: .seconds(50))
        #expect(changes.added == ["a.example.com"] && changes.removed == ["*"])
        // The gateway's connection ends, so that it is not used again, and does not look like the end of an answer.
        _ = try await origin.see { $0.isInputClosed }
        origin.close()
        #expect(try await client.see { $0.isClosed }.hasFailed)
        let next = try await tunnel.dial()
        next.write("GET / HTTP/1.1\r\nHost: b.example.com\r\n\r\n")
        #expect(try await next.see { $0.text.hasPrefix("HTTP/1.1 404 ") }.count > 0)
        #expect(front.relayCounts.opened == 1)
        try await tunnel.shutdown()
    }

    @Test("the busy relays of a former target are reset at the deadline")
    func busyRelay() async throws {
        let (tunnel, front, _) = try await start { LocalTargets(all: $0) }
        let (client, origin) = try await tunnel.join()
        client.write("request")
        _ = try await origin.see { $0.text == "request" }
        _ = front.update(LocalTargets(all: tunnel.target, host: .target), within: .milliseconds(200))
        #expect(try await client.see { $0.isClosed }.hasFailed)
        #expect(try await origin.see { $0.isClosed }.hasFailed)
        try await tunnel.shutdown()
    }

    @Test("a relay whose target stays the same does not notice")
    func sameRelay() async throws {
        let (tunnel, front, _) = try await start { LocalTargets(all: $0) }
        let (client, origin) = try await tunnel.join()
        var targets = front.targets
        targets.entries.append(.init(domain: "a.example.com", target: tunnel.target))
        #expect(front.update(targets, within: .zero).added == ["a.example.com"])
        client.write("request")
        _ = try await origin.see { $0.text == "request" }
        origin.write("answer")
        #expect(try await !client.see { $0.text == "answer" }.isClosed)
        try await tunnel.shutdown()
    }

    @Test("when one target is left, new connections are relays, and those of HTTP go on, by the new targets")
    func proxyToRelay() async throws {
        let (tunnel, front, _) = try await start { LocalTargets(entries: [.init(domain: "a.example.com", target: $0)]) }
        let client = try await tunnel.dial()
        client.write("GET / HTTP/1.1\r\nHost: b.example.com\r\n\r\n")
        _ = try await client.see { $0.text.hasPrefix("HTTP/1.1 404 ") }
        _ = front.update(LocalTargets(all: tunnel.target), within: .seconds(50))
        client.forget()
        client.write("GET / HTTP/1.1\r\nHost: b.example.com\r\n\r\n")
        var origins = tunnel.origins.makeAsyncIterator()
        let origin = try #require(await origins.next())
        _ = try await origin.see { $0.text.hasSuffix("\r\n\r\n") }
        origin.write("HTTP/1.1 204 No Content\r\n\r\n")
        _ = try await client.see { $0.text.hasPrefix("HTTP/1.1 204 ") }
        let (_, other) = try await tunnel.join()
        #expect(front.relayCounts.opened == 1)
        #expect(other.channel.isActive)
        try await tunnel.shutdown()
    }

    @Test("HTTP/2 on a relay's tunnel address is understood")
    func http2() async throws {
        let (tunnel, front, _) = try await start { LocalTargets(all: $0) }
        let client = try await tunnel.dial()
        // The preface and empty SETTINGS; the answer begins with SETTINGS.
        client.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0")
        _ = try await client.see { $0.count >= 9 }
        #expect(front.relayCounts == .init())
        try await tunnel.shutdown()
    }

    @Test("the way down is over when idle relays have ended and busy ones have had their answer")
    func drain() async throws {
        let (tunnel, _, open) = try await start { LocalTargets(all: $0) }
        let (idle, busy) = (try await tunnel.join(), try await tunnel.join())
        busy.client.write("request")
        _ = try await busy.origin.see { $0.text == "request" }
        async let drained: Void = open.drain(within: .seconds(50), on: tunnel.agent.eventLoop)
        _ = try await idle.origin.see { $0.isInputClosed }
        idle.origin.close()
        _ = try await idle.client.see { $0.isClosed }
        #expect(busy.client.channel.isActive)
        busy.origin.write("answer")
        #expect(try await busy.client.see { $0.count == 6 }.text == "answer")
        _ = try await busy.origin.see { $0.isInputClosed }
        busy.origin.close()
        await drained
        try await tunnel.shutdown()
    }

    private func start(
        _ targets: @escaping (UpstreamTarget) -> LocalTargets
    ) async throws -> (TunnelFixture, AgentFront, OpenChannels) {
        let open = OpenChannels()
        let made = Mutex<AgentFront?>(nil)
        let tunnel = try await TunnelFixture(initializer: { target in
            let front = AgentFront(targets(target), limits: .agent, open: open, logger: .silent)
            made.withLock { $0 = front }
            return { front.initialize($0) }
        })
        return (tunnel, try #require(made.withLock { $0 }), open)
    }
}
