import Inet
import NIOCore
import NIOSSL
import Proxy
import Testing

@Suite(.timeLimit(.minutes(2))) struct LoopbackTests {
    let net = Loopback()

    private func origin() async throws -> (port: UInt16, record: LoopValue<Origin.Record>) {
        let record = LoopValue(Origin.Record(), on: net.loop)
        let (_, port) = try await net.serve { try Origin.install(on: $0, record) }
        return (port, record)
    }

    private func get(_ path: String, _ more: String = "") -> ByteBuffer {
        ByteBuffer(string: "GET \(path) HTTP/1.1\r\nHost: app.example.com\r\n\(more)\r\n")
    }

    @Test("one client's requests use one connection to the upstream")
    func keepAlive() async throws {
        let (port, record) = try await origin()
        let gateway = try await net.gateway(to: port)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            for _ in 0..<10 {
                try await outbound.write(get("/hello"))
                let answer = try await reader.read(through: "proto=http\n")
                #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
                #expect(answer.contains("X-Forwarded-For: 127.0.0.1\n"))
            }
        }
        #expect(try await net.loop.submit { record.value.connections }.get() == 1)
    }

    @Test("a reader that does not read stops the writer; nothing is lost when it goes on")
    func slowReader() async throws {
        let total = 128 << 20
        let (port, record) = try await origin()
        let gateway = try await net.gateway(to: port)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(get("/fill?\(total)", "Connection: close\r\n"))
            let written = try await net.settle { record.value.written }
            // What lies in the system's socket buffers of three connections and in ours.
            #expect(written < total / 2, "\(written)")
            _ = try await reader.read(through: "\r\n\r\n")
            #expect(try await reader.countToEnd() == total)
        }
    }

    @Test("an upload streams through, with its length and in chunks")
    func upload() async throws {
        let (port, _) = try await origin()
        let gateway = try await net.gateway(to: port)
        let piece = ByteBuffer(repeating: 0x62, count: 1 << 16)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(
                ByteBuffer(string: "PUT /count HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: \(piece.readableBytes * 256)\r\n\r\n"))
            for _ in 0..<256 { try await outbound.write(piece) }
            #expect(try await reader.read(through: "\r\n\r\n16777216").hasSuffix("16777216"))

            try await outbound.write(
                ByteBuffer(string: "PUT /count HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"))
            for _ in 0..<16 {
                try await outbound.write(ByteBuffer(string: "10000\r\n"))
                try await outbound.write(piece)
                try await outbound.write(ByteBuffer(string: "\r\n"))
            }
            try await outbound.write(ByteBuffer(string: "0\r\n\r\n"))
            #expect(try await reader.read(through: "\r\n\r\n1048576").hasSuffix("1048576"))
        }
    }

    @Test("a client that goes away in the middle of a download ends the upstream's work")
    func clientGone() async throws {
        let closed = net.loop.makePromise(of: Void.self)
        let record = LoopValue(Origin.Record(), on: net.loop)
        let (_, port) = try await net.serve { channel in
            try Origin.install(on: channel, record)
            channel.closeFuture.cascade(to: closed)
        }
        let gateway = try await net.gateway(to: port)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(get("/fill?1000000000"))
            _ = try await reader.read(through: "\r\n\r\n")
        }
        try await closed.futureResult.get()
        #expect(try await net.loop.submit { record.value.written }.get() < 1_000_000_000)
    }

    @Test("a client that half-closes after its request still gets the whole answer, however slowly it reads")
    func halfClosedClient() async throws {
        let (port, record) = try await origin()
        let gateway = try await net.gateway(to: port)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            try await outbound.write(get("/fill?20000000"))
            outbound.finish()
            _ = try await net.settle { record.value.written }
            var reader = ByteReader(inbound)
            _ = try await reader.read(through: "\r\n\r\n")
            #expect(try await reader.countToEnd() == 20_000_000)
        }
    }

    @Test("WebSocket bytes are echoed, and each end is passed on")
    func webSocketEcho() async throws {
        let (_, port) = try await net.serve { try $0.pipeline.syncOperations.addHandler(UpgradingEcho()) }
        let gateway = try await net.gateway(to: port)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(ByteBuffer(string: UpgradeTests.handshake))
            #expect(try await reader.read(through: "\r\n\r\n").hasPrefix("HTTP/1.1 101 "))
            try await outbound.write(ByteBuffer(string: "ping."))
            #expect(try await reader.read(through: ".") == "ping.")
            for _ in 0..<64 { try await outbound.write(ByteBuffer(repeating: 0x63, count: 1 << 14)) }
            outbound.finish()
            #expect(try await reader.countToEnd() == 1 << 20)
        }
    }

    @Test("what a service says when the client of an upgraded connection has said all comes whole, however slowly it is read")
    func halfClosedRelay() async throws {
        let count = 20_000_000
        let (_, port) = try await net.serve {
            try $0.pipeline.syncOperations.addHandler(UpgradingEcho(farewell: ByteBuffer(repeating: 0x63, count: count)))
        }
        let gateway = try await net.gateway(to: port)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(ByteBuffer(string: UpgradeTests.handshake))
            #expect(try await reader.read(through: "\r\n\r\n").hasPrefix("HTTP/1.1 101 "))
            outbound.finish()
            var read = 0
            while let bytes = try await reader.iterator.next() {
                read += bytes.readableBytes
                // The pace is what is tested: what the gateway has written waits in it.
                try await net.loop.scheduleTask(in: .milliseconds(1)) {}.futureResult.get()
            }
            #expect(read == count)
        }
    }

    @Test("HTTPS: served by name, 421 for another tunnel's name")
    func tls() async throws {
        let (port, _) = try await origin()
        let router = Router(
            tunnels: ["app.example.com", "other.example.com"].map {
                TunnelConfig(id: $0, domain: $0, agentVirtualIP: Loopback.localhost, port: port)
            }, logger: .silent)
        let front = SingleCertificateFront(
            context: try TestCertificate.serverContext(), coverage: CoveredHosts(hosts: ["app.example.com"]))
        let gateway = try await net.gateway(router: router, kind: .https(front))
        let context = try TestCertificate.clientContext()
        let client = try await net.client(gateway.port) { channel in
            try channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: context, serverHostname: "app.example.com"))
        }
        try await client.executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            for _ in 0..<2 {
                try await outbound.write(get("/hello"))
                #expect(try await reader.read(through: "proto=https\n").hasPrefix("HTTP/1.1 200 OK\r\n"))
            }
            try await outbound.write(get("/fill?5000000"))
            _ = try await reader.read(through: "\r\n\r\n")
            var count = reader.text.utf8.count
            while count < 5_000_000, let bytes = try await reader.iterator.next() { count += bytes.readableBytes }
            #expect(count == 5_000_000)
            try await outbound.write(ByteBuffer(string: "GET / HTTP/1.1\r\nHost: other.example.com\r\nConnection: close\r\n\r\n"))
            reader.drop()
            #expect(try await reader.read(through: "Misdirected Request\n").hasPrefix("HTTP/1.1 421 "))
        }
    }

    @Test("a client that stalls within the TLS handshake is cut off")
    func stalledHandshake() async throws {
        let front = SingleCertificateFront(context: try TestCertificate.serverContext(), coverage: CoveredHosts(hosts: []))
        var limits = ProxyLimits()
        limits.header = .milliseconds(50)
        limits.linger = .milliseconds(50)
        limits.clockInterval = .milliseconds(10)
        let gateway = try await net.gateway(to: 1, kind: .https(front), limits: limits)
        let client = try await net.client(gateway.port)
        try await client.executeThenClose { inbound, outbound in
            // The head of a record that never comes.
            try await outbound.write(ByteBuffer(bytes: [22, 3, 1, 2, 0]))
            var iterator = inbound.makeAsyncIterator()
            while (try? await iterator.next()) != nil {}
        }
    }

    @Test("the plain port redirects what has a tunnel, byte-exact, and knows nothing else")
    func redirect() async throws {
        let router = Router(
            tunnels: [
                TunnelConfig(id: "1", domain: "app.example.com", agentVirtualIP: Loopback.localhost),
                TunnelConfig(id: "2", domain: "off.example.com", agentVirtualIP: Loopback.localhost, enabled: false),
            ], logger: .silent)
        let gateway = try await net.gateway(router: RedirectRouter(router: router, publicHTTPSPort: 8443))
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            func answer(_ line: String, _ host: String) async throws -> String {
                try await outbound.write(ByteBuffer(string: "\(line) HTTP/1.1\r\nHost: \(host)\r\n\r\n"))
                let head = try await reader.read(through: "\r\n\r\n")
                if !line.hasPrefix("HEAD") { _ = try await reader.read(through: "\n") }
                return head
            }
            let first = try await answer("GET /a%2Fb/../c?x=%3F&y", "App.example.com:8080")
            #expect(first.hasPrefix("HTTP/1.1 301 Moved Permanently\r\n"))
            #expect(first.contains("\r\nLocation: https://app.example.com:8443/a%2Fb/../c?x=%3F&y\r\n"))
            #expect(try await answer("HEAD /", "app.example.com").hasPrefix("HTTP/1.1 301 "))
            #expect(try await answer("DELETE /", "app.example.com").hasPrefix("HTTP/1.1 308 Permanent Redirect\r\n"))
            #expect(try await answer("GET /", "off.example.com").hasPrefix("HTTP/1.1 301 "))
            #expect(try await answer("GET /", "nobody.example.com").hasPrefix("HTTP/1.1 404 "))
        }
        if case .redirect(let origin) = RedirectRouter(router: router, publicHTTPSPort: 443).resolve(host: "app.example.com") {
            #expect(origin == "https://app.example.com", "the usual port is not named")
        } else {
            Issue.record("no redirect")
        }
    }

    @Test("gateway, agent and target in a row: the target sees the public host and the client", arguments: [false, true])
    func throughAgent(hostOfTarget: Bool) async throws {
        let (port, _) = try await origin()
        let target = try #require(UpstreamTarget("localhost:\(port)"))
        let agent = LocalProxy(targets: LocalTargets(all: target, host: hostOfTarget ? .target : .asReceived), logger: .silent)
        let (_, agentPort) = try await net.serve { channel in
            _ = agent.initialize(channel)
        }
        let gateway = try await net.gateway(to: agentPort)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(get("/hello"))
            let seen = try await reader.read(through: "proto=http\n")
            #expect(seen.contains("Host: \(hostOfTarget ? "localhost:\(port)" : "app.example.com")\n"))
            #expect(seen.contains("X-Forwarded-Host: app.example.com\n"))
            #expect(seen.components(of: "X-Forwarded-For") == 1)
        }
    }

    @Test("a target that does not listen is 502")
    func refused() async throws {
        // A port that was given back could be anybody's by now, even the gateway's.
        let gateway = try await net.gateway(to: 1)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(get("/"))
            #expect(try await reader.read(through: "Bad Gateway\n").hasPrefix("HTTP/1.1 502 "))
        }
    }

    @Test("draining ends idle connections, lets a download finish, and then is done")
    func drain() async throws {
        let (port, _) = try await origin()
        let gateway = try await net.gateway(to: port)
        let idle = try await net.client(gateway.port)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(get("/fill?20000000"))
            _ = try await reader.read(through: "\r\n\r\n")
            let drained = gateway.drain(within: .seconds(60))
            #expect(try await reader.countToEnd() == 20_000_000)
            try await idle.executeThenClose { inbound, _ in
                var rest = ByteReader(inbound)
                let count = try await rest.countToEnd()
                #expect(count == 0)
            }
            outbound.finish()
            try await drained.get()
        }
        #expect(gateway.openConnections == 0)
    }

    @Test("connections beyond a client's share are closed at once")
    func limit() async throws {
        let (port, _) = try await origin()
        let limiter = ConnectionLimiter(maximum: 10, maximumPerClient: 1)
        let gateway = try await net.gateway(to: port, limiter: limiter)
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            var reader = ByteReader(inbound)
            try await outbound.write(get("/hello"))
            _ = try await reader.read(through: "proto=http\n")
            try await net.client(gateway.port).executeThenClose { inbound, _ in
                var second = ByteReader(inbound)
                let count = (try? await second.countToEnd()) ?? 0
                #expect(count == 0)
            }
            try await outbound.write(get("/hello"))
            #expect(try await reader.read(through: "proto=http\n").hasPrefix("HTTP/1.1 200 "))
        }
        #expect(limiter.refused == 1)
    }

    @Test("clients are counted by IPv4 address and by IPv6 /64")
    func limiterKeys() throws {
        let limiter = ConnectionLimiter(maximumPerClient: 2)
        let network = try ["2001:db8::1", "2001:db8::ffff:1", "2001:db8::2"].map { try #require(IPAddress($0)) }
        #expect(limiter.admit(network[0]))
        #expect(limiter.admit(network[1]))
        #expect(!limiter.admit(network[2]))
        #expect(limiter.admit(try #require(IPAddress("::ffff:192.0.2.1"))))
        limiter.release(network[0])
        #expect(limiter.admit(network[2]))
        #expect(limiter.refused == 1)
    }

    @Test("one client cannot take the last descriptor", arguments: [(1024, 896, 448), (1 << 20, 8192, 1024), (0, 16, 8)])
    func descriptors(limit: Int, maximum: Int, perClient: Int) {
        let limiter = ConnectionLimiter(descriptors: limit)
        #expect(limiter.maximum == maximum)
        #expect(limiter.maximumPerClient == perClient)
    }

    @Test("a port that cannot be bound says what to do")
    func bindErrors() async throws {
        let first = try await net.gateway(to: 1)
        let service = ProxyService(
            mode: .gateway, router: Router(logger: .silent), connector: OriginDialer.connector(), logger: .silent)
        let second = PublicListener.bind(
            SocketEndpoint(Loopback.localhost, port: first.port), kind: .http, service: service, limiter: ConnectionLimiter(),
            group: net.loop)
        let error = await #expect(throws: ListenError.self) { try await second.get() }
        #expect(error?.description.contains("another program uses it") == true)
        #expect(error?.description.contains("choose another port (--http 127.0.0.1:") == true)

        let denied = ListenError(SocketEndpoint(.anyV6, port: 443), IOError(errnoCode: 13, reason: "bind"), flag: "--https").description
        for part in ["[::]:443", "--https [::]:8443", "setcap cap_net_bind_service=+ep", "net.ipv4.ip_unprivileged_port_start=443"] {
            #expect(denied.contains(part), "\(denied)")
        }
    }
}

/// Agrees to WebSocket and sends back every byte that follows.
private final class UpgradingEcho: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private var head: String? = ""
    /// What it says when the client has said all.
    private let farewell: ByteBuffer

    init(farewell: ByteBuffer = ByteBuffer()) { self.farewell = farewell }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        guard let head else { return context.writeAndFlush(wrapOutboundOut(bytes), promise: nil) }
        let text = head + String(buffer: bytes)
        guard text.hasSuffix("\r\n\r\n") else {
            self.head = text
            return
        }
        self.head = nil
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: UpgradeTests.accept)), promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event as? ChannelEvent == .inputClosed else { return }
        // Behind the echo: NIO would close the channel without it.
        let channel = context.channel
        context.writeAndFlush(wrapOutboundOut(farewell)).whenComplete { _ in channel.close(mode: .output, promise: nil) }
    }
}
