import Glibc
import Inet
import Logging
import NIOCore
import NIOEmbedded
import NIOPosix
import Proxy
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct AcceptPauseTests {
    private let net = Loopback()

    /// - Returns: a gateway whose every request is a 404, and its log.
    private func gateway(_ limiter: ConnectionLimiter) async throws -> (PublicListener, LineCollector) {
        let lines = LineCollector()
        let logger = Logger(label: "test", factory: { _ in lines })
        // Clients that say nothing stay, however slow the machine is.
        var limits = ProxyLimits()
        limits.header = .minutes(5)
        let service = ProxyService(
            mode: .gateway, router: Router(logger: .silent), connector: OriginDialer.connector(), limits: limits, logger: logger)
        let listener = try await PublicListener.bind(
            SocketEndpoint(Loopback.localhost, port: 0), kind: .http, service: service, limiter: limiter, group: net.loop
        ).get()
        return (listener, lines)
    }

    private func said(_ lines: LineCollector) -> [String] {
        lines.all.filter { $0.contains("accepted") }.map { String($0.prefix { $0 != "[" }) }
    }

    @Test("with as many connections as there may be a new client waits, and is served when another one has gone")
    func full() async throws {
        let limiter = ConnectionLimiter(maximum: 2)
        let (gateway, lines) = try await gateway(limiter)
        let first = try await ClientBootstrap(group: net.loop).connect(host: "127.0.0.1", port: Int(gateway.port)).get()
        let second = try await ClientBootstrap(group: net.loop).connect(host: "127.0.0.1", port: Int(gateway.port)).get()
        while limiter.open < 2 { try await net.loop.submit {}.get() }
        try await net.client(gateway.port).executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"))
            #expect(try await net.settle { limiter.open } == 2, "the third waits in the kernel")
            #expect(said(lines) == ["warning No connection is accepted for now: new ones wait "])
            try await first.close().get()
            var reader = ByteReader(inbound)
            #expect(try await reader.read(through: "\r\n").hasPrefix("HTTP/1.1 404"))
        }
        #expect(said(lines).last == "notice Connections are accepted again ")
        #expect(limiter.refused == 0)
        try await second.close().get()
        try await gateway.drain(within: .zero).get()
        #expect(try await net.settle { limiter.open } == 0)
    }

    @Test("accepted sockets send without delay and find out about clients that vanished, as the listening one would")
    func socketOptions() async throws {
        let limiter = ConnectionLimiter(maximum: 2)
        let (gateway, _) = try await gateway(limiter)
        let client = try await ClientBootstrap(group: net.loop).connect(host: "127.0.0.1", port: Int(gateway.port)).get()
        while limiter.open < 1 { try await net.loop.submit {}.get() }
        let port = try #require(client.localAddress?.port)
        let accepted = (0..<CInt(4096)).filter {
            Self.port(of: $0, getpeername) == port && Self.port(of: $0, getsockname) == Int(gateway.port)
        }
        #expect(accepted.count == 1)
        let options: [(level: CInt, name: CInt, value: CInt)] = [
            (CInt(IPPROTO_TCP), TCP_NODELAY, 1), (SOL_SOCKET, SO_KEEPALIVE, 1), (CInt(IPPROTO_TCP), TCP_KEEPIDLE, 60),
            (CInt(IPPROTO_TCP), TCP_KEEPINTVL, 15), (CInt(IPPROTO_TCP), TCP_KEEPCNT, 4),
        ]
        for descriptor in accepted {
            for (level, name, wanted) in options {
                var (value, size) = (CInt(-1), socklen_t(MemoryLayout<CInt>.size))
                #expect(getsockopt(descriptor, level, name, &value, &size) == 0 && value == wanted, "option \(name)")
            }
        }
        try await client.close().get()
        try await gateway.drain(within: .zero).get()
    }

    private static func port(
        of descriptor: CInt, _ end: (CInt, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> CInt
    ) -> Int? {
        var (address, size) = (sockaddr_in(), socklen_t(MemoryLayout<sockaddr_in>.size))
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { end(descriptor, $0, &size) }
        }
        return result == 0 && address.sin_family == sa_family_t(AF_INET) ? Int(UInt16(bigEndian: address.sin_port)) : nil
    }

    @Test("a listener that is paused can be closed")
    func closing() async throws {
        let limiter = ConnectionLimiter(maximum: 1)
        let (gateway, _) = try await gateway(limiter)
        _ = try await ClientBootstrap(group: net.loop).connect(host: "127.0.0.1", port: Int(gateway.port)).get()
        while limiter.open < 1 { try await net.loop.submit {}.get() }
        try await gateway.drain(within: .zero).get()
        #expect(try await net.settle { limiter.open } == 0)
    }

    @Test("without descriptors nothing is read for a second, and other faults go on to their handler", arguments: [EMFILE, ENFILE, ENOMEM])
    func shortage(code: CInt) throws {
        let lines = LineCollector()
        let (loop, reads) = (EmbeddedEventLoop(), ReadCounter())
        let pause = AcceptPause(limiter: ConnectionLimiter(), logger: Logger(label: "test", factory: { _ in lines }))
        let channel = EmbeddedChannel(handlers: [reads, pause], loop: loop)
        channel.pipeline.fireErrorCaught(IOError(errnoCode: code, reason: "accept"))
        let before = reads.count
        channel.pipeline.read()
        #expect(reads.count == before)
        loop.advanceTime(by: AcceptPause.retry)
        #expect(reads.count == before + 1)
        channel.pipeline.read()
        #expect(reads.count == before + 2)
        channel.pipeline.fireErrorCaught(IOError(errnoCode: code, reason: "accept"))
        #expect(said(lines).count == 2, "one pause a minute is told of")
        try channel.throwIfErrorCaught()
        channel.pipeline.fireErrorCaught(IOError(errnoCode: EINVAL, reason: "accept"))
        #expect(throws: IOError.self) { try channel.throwIfErrorCaught() }
    }

    @Test("a larger maximum wakes those that wait; one line a minute tells")
    func change() {
        let limiter = ConnectionLimiter(maximum: 1)
        let calls = Atomic(0)
        #expect(!limiter.enter())
        limiter.whenRoom { calls.add(1, ordering: .relaxed) }
        limiter.change(maximum: 1, maximumPerClient: 1)
        #expect(calls.load(ordering: .relaxed) == 0)
        limiter.change(maximum: 2, maximumPerClient: 1)
        #expect(calls.load(ordering: .relaxed) == 1)
        limiter.whenRoom { calls.add(1, ordering: .relaxed) }
        #expect(calls.load(ordering: .relaxed) == 2, "there is room already")
        #expect(limiter.maximum == 2)
    }
}
