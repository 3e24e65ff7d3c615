import FoundationEssentials
import Logging
import NIOCore
import NIOEmbedded
import NIOPosix
import NIOSSL
import Proxy
import Testing

/// Answers every read with `SNI=name`, and says what the handshake agreed on.
private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    let presented: PresentedCertificate

    init(_ presented: PresentedCertificate) { self.presented = presented }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "SNI=\(presented.serverName ?? "none")")), promise: nil)
    }
}

/// What a socket can and the embedded channel cannot: closing the output alone.
private final class HalfCloseHandler: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if mode == .output { promise?.succeed() } else { context.close(mode: mode, promise: promise) }
    }
}

/// Collects what comes until the connection ends; a first read of `until` bytes is enough if given.
private final class Collector: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let promise: EventLoopPromise<[UInt8]>
    private let enough: Int
    private var bytes: [UInt8] = []

    init(_ promise: EventLoopPromise<[UInt8]>, enough: Int) {
        self.promise = promise
        self.enough = enough
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        bytes += unwrapInboundIn(data).readableBytesView
        if bytes.count >= enough { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) { promise.succeed(bytes) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise.fail(error)
        context.close(promise: nil)
    }
}

@Suite struct ClientHelloHandlerTests {
    private let directory: ScratchDirectory
    private let selector: CertificateSelector

    init() throws {
        directory = try ScratchDirectory()
        selector = try CertificateSelector(
            configuration: TLSFrontConfiguration(domains: ["app.example.com", "*.wild.example"], stateDirectory: directory.path),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    private func withServer<Result>(_ body: (any Channel) async throws -> Result) async throws -> Result {
        let selector = selector
        let server = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(selector.makeHandler(onAccept: { try pipeline.addHandler(AnswerHandler($0)) }))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let result = try await body(server)
        try await server.close()
        return result
    }

    /// Sends bytes as they are, and returns all that comes back.
    private func raw(_ bytes: [UInt8], to server: any Channel, chunk: Int = .max) async throws -> [UInt8] {
        let promise = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: [UInt8].self)
        let client = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Collector(promise, enough: .max)) }
            }
            .connectTimeout(.seconds(5)).connect(to: try #require(server.localAddress)).get()
        for start in stride(from: 0, to: bytes.count, by: min(chunk, bytes.count)) {
            let end = min(start + min(chunk, bytes.count), bytes.count)
            try await client.writeAndFlush(ByteBuffer(bytes: bytes[start..<end])).get()
        }
        return try await promise.futureResult.get()
    }

    /// A real handshake that trusts only the internal CA; returns the server's answer to one byte.
    private func handshake(
        _ name: String?, to server: any Channel, maximum: TLSVersion = .tlsv13, minimum: TLSVersion = .tlsv12, ciphers: String? = nil
    ) async throws -> String {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(InternalCA.certificatePath(in: directory.path)))
        configuration.applicationProtocols = ["h2", "http/1.1"]
        configuration.minimumTLSVersion = minimum
        configuration.maximumTLSVersion = maximum
        if let ciphers { configuration.cipherSuites = ciphers }
        if name == nil { configuration.certificateVerification = .none }
        let context = try NIOSSLContext(configuration: configuration)
        let promise = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: [UInt8].self)
        let client = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(NIOSSLClientHandler(context: context, serverHostname: name))
                    try pipeline.addHandler(Collector(promise, enough: 8))
                }
            }
            .connectTimeout(.seconds(5)).connect(to: try #require(server.localAddress)).get()
        client.writeAndFlush(ByteBuffer(string: "x"), promise: nil)
        return String(decoding: try await promise.futureResult.get(), as: UTF8.self)
    }

    @Test("a known name shakes hands by a chain that the client verifies, in TLS 1.3 and 1.2", arguments: [TLSVersion.tlsv13, .tlsv12])
    func knownName(version: TLSVersion) async throws {
        let answers = try await withServer { server in
            [
                try await handshake("app.example.com", to: server, maximum: version),
                try await handshake("a.wild.example", to: server, maximum: version),
            ]
        }
        #expect(answers == ["SNI=app.example.com", "SNI=a.wild.example"])
    }

    @Test("TLS 1.1 is refused")
    func oldVersion() async throws {
        await #expect(throws: (any Error).self) {
            try await withServer { try await handshake("app.example.com", to: $0, maximum: .tlsv11, minimum: .tlsv1) }
        }
    }

    @Test("TLS 1.2 without authenticated encryption is refused")
    func weakCipher() async throws {
        await #expect(throws: (any Error).self) {
            try await withServer {
                try await handshake("app.example.com", to: $0, maximum: .tlsv12, ciphers: "ECDHE-ECDSA-AES128-SHA")
            }
        }
    }

    @Test("an unknown name ends with alert 112, whatever the segments")
    func unknownName() async throws {
        let hello = clientHello(serverName: Array("other.example".utf8), padding: 1_700)
        let answers = try await withServer { server in
            [try await raw(hello, to: server), try await raw(hello, to: server, chunk: 400)]
        }
        #expect(answers == [[21, 3, 3, 0, 2, 2, 112], [21, 3, 3, 0, 2, 2, 112]])
        #expect(selector.refusals == [.unknownName: 2])
    }

    @Test("no name ends with alert 109")
    func noName() async throws {
        #expect(try await withServer { try await raw(clientHello(serverName: nil), to: $0) } == [21, 3, 3, 0, 2, 2, 109])
        await #expect(throws: (any Error).self) { try await withServer { try await handshake(nil, to: $0) } }
    }

    @Test("plain HTTP on the TLS port is told so")
    func plainHTTP() async throws {
        let answer = String(decoding: try await withServer { try await raw(Array("GET / HTTP/1.1\r\n\r\n".utf8), to: $0) }, as: UTF8.self)
        let parts = answer.split(separator: "\r\n\r\n", maxSplits: 1).map(String.init)
        #expect(parts.first?.hasPrefix("HTTP/1.1 400 Bad Request\r\n") == true)
        #expect(parts.first?.contains("Content-Length: \(parts.last?.utf8.count ?? 0)") == true)
    }

    @Test("a channel that cannot close one side only is closed after the alert")
    func withoutHalfClose() throws {
        let channel = EmbeddedChannel(handler: selector.makeHandler())
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        try channel.writeInbound(ByteBuffer(bytes: clientHello(serverName: nil)))
        #expect(try channel.readOutbound(as: ByteBuffer.self) == ByteBuffer(bytes: TLSAlert.missingExtension.record))
        channel.embeddedEventLoop.run()
        #expect(!channel.isActive)
    }

    @Test("a client that stays after its alert is cut off after a second, one that goes on sending at a bound")
    func lingering() throws {
        for isFlooding in [false, true] {
            let channel = EmbeddedChannel(handlers: [HalfCloseHandler(), selector.makeHandler()])
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
            try channel.writeInbound(ByteBuffer(bytes: clientHello(serverName: nil)))
            channel.embeddedEventLoop.run()
            #expect(channel.isActive)
            if isFlooding {
                for _ in 0..<5 where channel.isActive { try channel.writeInbound(ByteBuffer(repeating: 0, count: 16_384)) }
            } else {
                channel.embeddedEventLoop.advanceTime(by: .milliseconds(999))
                #expect(channel.isActive)
                channel.embeddedEventLoop.advanceTime(by: .milliseconds(1))
            }
            #expect(!channel.isActive)
            #expect(try channel.readInbound(as: ByteBuffer.self) == nil)
        }
    }

    @Test("a client that ends its side before the hello is complete is gone at once")
    func earlyEnd() throws {
        let channel = EmbeddedChannel(handler: selector.makeHandler())
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        try channel.writeInbound(ByteBuffer(bytes: clientHello(serverName: nil).prefix(20)))
        #expect(channel.isActive)
        channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        #expect(!channel.isActive)
    }

    @Test("nothing is written in clear before the handshake")
    func noClearText() throws {
        let channel = EmbeddedChannel(handler: selector.makeHandler())
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        #expect(throws: ChannelError.inappropriateOperationForState) { try channel.writeOutbound(ByteBuffer(string: "secret")) }
        #expect(try channel.readOutbound(as: ByteBuffer.self) == nil)
        _ = try? channel.finish()
    }

    @Test("a handler that cannot be set up closes the connection")
    func failingSetup() throws {
        let channel = EmbeddedChannel(handler: selector.makeHandler(onAccept: { _ in throw FixtureError(text: "no") }))
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        #expect(throws: FixtureError.self) {
            try channel.writeInbound(ByteBuffer(bytes: clientHello(serverName: Array("app.example.com".utf8))))
            try channel.throwIfErrorCaught()
        }
        #expect(!channel.isActive)
    }
}
