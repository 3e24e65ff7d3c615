import FoundationEssentials
import Inet
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import Proxy
import Testing
import WGUserspace

@Suite struct MetricsTextTests {
    @Test("families have help and type, and label values are escaped")
    func escaping() {
        var text = MetricsText()
        text.family("a_total", .counter, "Back\\slash\nand \"line\".")
        text.sample("a_total", [("x", "q\"\\\n"), ("y", "é")], 7)
        text.single("b", .gauge, "One.", .max)
        #expect(
            text.text == """
                # HELP a_total Back\\\\slash\\nand "line".
                # TYPE a_total counter
                a_total{x="q\\"\\\\\\n",y="é"} 7
                # HELP b One.
                # TYPE b gauge
                b 18446744073709551615

                """)
    }

    @Test("TCP's totals: every state is there, and counters end in _total")
    func tcpTotals() {
        var status = InterfaceStatus()
        status.tcp.connections[2] = 7
        status.tcp.segmentsSent = 8
        status.tcp.halfOpen = 9
        status.tcp.bufferMemory = 10
        var text = MetricsText()
        text.add(status)
        for line in [
            #"kakuremichi_tcp_connections{state="established"} 7"#, #"kakuremichi_tcp_connections{state="time_wait"} 0"#,
            #"kakuremichi_tcp_segments_total{direction="send"} 8"#, "kakuremichi_tcp_half_open_connections 9",
            "kakuremichi_tcp_buffer_memory_bytes 10", "kakuremichi_tcp_evicted_connections_total 0",
            "kakuremichi_tcp_syn_cookies_total{event=\"rejected\"} 0", "kakuremichi_tcp_retransmission_timeouts_total 0",
            #"kakuremichi_tcp_opened_connections_total{direction="passive"} 0"#,
        ] { #expect(text.text.contains("\n\(line)\n"), "\(line)") }
        #expect(text.text.split(separator: "\n").count { $0.hasPrefix("kakuremichi_tcp_connections{") } == 10)
        for line in text.text.split(separator: "\n") where line.hasPrefix("# TYPE kakuremichi_tcp") {
            #expect(line.hasSuffix(" counter") == line.contains("_total "), "\(line)")
        }
    }

    @Test("each loop's peers and datagrams, and what one has given to another")
    func loops() {
        var status = InterfaceStatus()
        status.loops = [.init(), .init()]
        status.loops[1].peers = 3
        status.loops[1].datagramsReceived = 4
        status.loops[0].datagramsSent = 5
        status.counters.initiationsHandedOver = 6
        status.counters.misdirectedMessages = 7
        var text = MetricsText()
        text.add(status)
        for line in [
            #"kakuremichi_loop_peers{loop="0"} 0"#, #"kakuremichi_loop_peers{loop="1"} 3"#,
            #"kakuremichi_loop_udp_datagrams_total{loop="1",direction="receive"} 4"#,
            #"kakuremichi_loop_udp_datagrams_total{loop="0",direction="send"} 5"#,
            #"kakuremichi_loop_handed_over_total{kind="initiation"} 6"#, #"kakuremichi_loop_handed_over_total{kind="misdirected"} 7"#,
        ] { #expect(text.text.contains("\n\(line)\n"), "\(line)") }
    }

    @Test("10,000 peers: the snapshot holds the interface's loop for milliseconds only")
    func manyPeers() async throws {
        let peers = (0..<10_000).map { index in
            InterfaceConfiguration.Peer(
                publicKey: PrivateKey.generate(using: .seeded(UInt64(index) + 1)).publicKey,
                allowedIPs: [IPPrefix(host: IPAddress(v4: 10, 100, UInt8(index / 256), UInt8(index % 256)))])
        }
        let configuration = InterfaceConfiguration(
            privateKey: StoredPrivateKey(PrivateKey.generate(using: .seeded(999_999))),
            addresses: [try #require(InterfaceAddress("10.1.0.1/8"))], peers: peers)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let interface = try await WireGuardInterface.start(configuration, on: loop).get()
        var best = Duration.seconds(1000)
        var status = InterfaceStatus()
        for _ in 0..<5 {
            let clock = ContinuousClock()
            let begun = clock.now
            status = try await interface.status().get()
            best = min(best, clock.now - begun)
        }
        var text = MetricsText()
        let begun = ContinuousClock().now
        text.add(status)
        print("10,000 peers: snapshot \(best), text \(ContinuousClock().now - begun), \(text.text.utf8.count) bytes")
        #expect(status.peers.count == 10_000)
        #expect(text.text.utf8.count < AdminClient.maximumAnswer)
        // A few milliseconds on a quiet machine; something quadratic would take longer than this on any.
        #expect(best < .seconds(1))
        try await interface.close().get()
    }
}

@Suite struct MetricsListenerTests {
    private let group = MultiThreadedEventLoopGroup.singleton
    private let logger = Logger(label: "test")

    private func listener(timeLimit: TimeAmount = .minutes(1)) async throws -> MetricsListener {
        let listener = try await MetricsListener.start(
            SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: 0), group: group, logger: logger, timeLimit: timeLimit)
        listener.serve(metrics: { Array("m 1\n".utf8) }, status: { Array("{}".utf8) })
        return listener
    }

    /// Sends bytes and reads until the other side closes.
    private func exchange(_ request: String, with listener: MetricsListener) async throws -> String {
        let channel = try await ClientBootstrap(group: group).connect(to: listener.address) { channel in
            channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel) }
        }
        return try await channel.executeThenClose { inbound, outbound in
            try? await outbound.write(ByteBuffer(string: request))
            var answer = ByteBuffer()
            do {
                for try await bytes in inbound { answer.writeImmutableBuffer(bytes) }
            } catch {}
            return String(buffer: answer)
        }
    }

    private func status(_ request: String, _ listener: MetricsListener) async throws -> String {
        String(try await exchange(request, with: listener).split(separator: "\r\n").first?.dropFirst(9).prefix(3) ?? "cut")
    }

    @Test("GET /metrics and /status are answered, without any CORS field")
    func pages() async throws {
        let listener = try await listener()
        let metrics = try await exchange("GET /metrics HTTP/1.1\r\nHost: localhost:9\r\n\r\n", with: listener)
        #expect(metrics.hasPrefix("HTTP/1.1 200 OK\r\n") && metrics.hasSuffix("\r\n\r\nm 1\n"))
        #expect(metrics.contains("Content-Type: \(MetricsText.contentType)\r\n"))
        #expect(!metrics.lowercased().contains("access-control"))
        let status = try await exchange("GET /status?x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", with: listener)
        #expect(status.hasSuffix("\r\n\r\n{}"))
        await listener.close()
    }

    @Test(
        "Host has to be literal and local",
        arguments: [
            ("127.0.0.1:9", "200"), ("127.9.9.9", "200"), ("[::1]:80", "200"), ("LOCALHOST", "200"), ("localhost:1", "200"),
            ("evil.example", "403"), ("localhost.evil.example", "403"), ("10.1.0.1", "403"), ("[::2]", "403"), ("", "403"),
            ("127.0.0.1.evil.example:80", "403"), ("2130706433", "403"), ("localhost:x", "403"), ("user@localhost", "403"),
        ])
    func hosts(host: String, expected: String) async throws {
        let listener = try await listener()
        #expect(try await status("GET /metrics HTTP/1.1\r\nHost: \(host)\r\n\r\n", listener) == expected)
        await listener.close()
    }

    @Test(
        "what is not a plain local GET is refused",
        arguments: [
            ("GET /metrics HTTP/1.1\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", "403"),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", "403"),
            ("GET /metrics HTTP/1.1\r\nHost: localhost:9\r\nOrigin: http://localhost:8\r\n\r\n", "403"),
            ("GET /metrics HTTP/1.1\r\nHost: localhost:9\r\nOrigin: http://localhost:9\r\n\r\n", "200"),
            ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", "405"),
            ("OPTIONS /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
            ("DELETE /status HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
            ("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
            ("rubbish\r\n\r\n", "400"),
        ])
    func refused(request: String, expected: String) async throws {
        let listener = try await listener()
        #expect(try await status(request, listener) == expected)
        await listener.close()
    }

    @Test("an endless head is cut off")
    func oversize() async throws {
        let listener = try await listener()
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + String(repeating: "x", count: MetricsListener.maximumHead)
        #expect(try await exchange(request, with: listener).isEmpty)
        await listener.close()
    }

    @Test("a client that sends nothing whole is cut off")
    func slow() async throws {
        let listener = try await listener(timeLimit: .milliseconds(50))
        #expect(try await exchange("GET /metrics HTTP/1.1\r\n", with: listener).isEmpty)
        await listener.close()
    }

    @Test("only so many connections at once, and room again when they end")
    func crowd() async throws {
        let listener = try await listener()
        var held: [any Channel] = []
        for _ in 0...MetricsListener.maximumConnections {
            held.append(try await ClientBootstrap(group: group).connect(to: listener.address).get())
        }
        // Which one of them is too many depends on the order in which the listener's loops see them.
        let first = group.next().makePromise(of: Void.self)
        for channel in held { channel.closeFuture.whenSuccess { first.succeed() } }
        try await first.futureResult.get()
        #expect(held.count { $0.isActive } >= MetricsListener.maximumConnections - 1)
        for channel in held { try? await channel.close() }
        var answer = ""
        while answer.isEmpty { answer = try await exchange("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", with: listener) }
        #expect(answer.hasPrefix("HTTP/1.1 200"))
        await listener.close()
    }

    @Test("a port that is taken is named, with what to do")
    func takenPort() async throws {
        let first = try await MetricsListener.start(SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: 0), group: group, logger: logger)
        let port = UInt16(try #require(first.address.port))
        let error = await #expect(throws: (any Error).self) {
            try await MetricsListener.start(SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: port), group: group, logger: logger)
        }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.hasPrefix("metrics: cannot listen on 127.0.0.1:\(port): another program uses it"))
        #expect(text.contains("--metrics-listen 127.0.0.1:") && text.hasSuffix("or no metrics (--metrics-listen off)"), "\(text)")
        await first.close()
    }

    @Test("an address that others reach is never bound")
    func loopbackOnly() async {
        await #expect(throws: (any Error).self) {
            try await MetricsListener.start(
                SocketEndpoint(IPAddress(v4: 0, 0, 0, 0), port: 0), group: group, logger: logger)
        }
    }
}
