import Glibc
import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL
import Proxy
import Testing

/// A client of HTTP/1.0 knows the end of a body by the end of the connection alone.
@Suite(.timeLimit(.minutes(1))) struct HalfBodyTests {
    let net = Loopback()

    /// The end of a connection as its reader sees it.
    final class EndRecorder: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let seen = NIOLockedValueBox("")
        let ended: EventLoopPromise<String>
        init(_ ended: EventLoopPromise<String>) { self.ended = ended }

        private func note(_ text: String) { seen.withLockedValue { $0 += text } }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { note(String(buffer: unwrapInboundIn(data))) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            if (error as? IOError)?.errnoCode == ECONNRESET { return note("|reset") }
            note(error as? NIOSSLError == .uncleanShutdown ? "|no close_notify" : "|error")
        }
        func channelInactive(context: ChannelHandlerContext) { ended.succeed(seen.withLockedValue { $0 }) }
    }

    /// Answers the first bytes that come, and closes if it is told to.
    final class Answer: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        let text: String
        let closes: Bool
        init(_ text: String, closes: Bool) {
            self.text = text
            self.closes = closes
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
            if closes { context.close(promise: nil) }
        }
    }

    private func end(
        of answer: String, closes: Bool = true, tls: Bool, version: String = "1.0",
        _ meanwhile: (PublicListener, EndRecorder) async throws -> Void = { _, _ in }
    ) async throws -> String {
        let (_, port) = try await net.serve { try $0.pipeline.syncOperations.addHandler(Answer(answer, closes: closes)) }
        let front = SingleCertificateFront(context: try TestCertificate.serverContext(), coverage: CoveredHosts(hosts: ["app.example.com"]))
        let gateway = try await net.gateway(to: port, kind: tls ? .https(front) : .http)
        let context = try TestCertificate.clientContext()
        let ended = net.loop.makePromise(of: String.self)
        let recorder = EndRecorder(ended)
        // On its loop, at once: the gateway does not wait for ever.
        try await ClientBootstrap(group: net.loop).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                let operations = channel.pipeline.syncOperations
                if tls { try operations.addHandler(NIOSSLClientHandler(context: context, serverHostname: "app.example.com")) }
                try operations.addHandler(recorder)
            }
        }
        .connect(host: "127.0.0.1", port: Int(gateway.port))
        .flatMap { $0.writeAndFlush(ByteBuffer(string: "GET / HTTP/\(version)\r\nHost: app.example.com\r\n\r\n")) }
        .get()
        try await meanwhile(gateway, recorder)
        let seen = try await ended.futureResult.get()
        return String(seen[(seen.ranges(of: "\r\n\r\n").first?.upperBound ?? seen.startIndex)...])
    }

    private let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"

    @Test("half a body ends with a reset, never with an orderly end", arguments: [false, true])
    func half(tls: Bool) async throws {
        // The reset may overtake the bytes.
        #expect(try await end(of: chunk, tls: tls).hasSuffix(tls ? "|reset|no close_notify" : "|reset"))
    }

    @Test("a whole body ends in order", arguments: [false, true])
    func whole(tls: Bool) async throws {
        #expect(try await end(of: chunk + "0\r\n\r\n", tls: tls) == "hi")
    }

    @Test("half a body that is marked as such by its framing ends in order", arguments: [false, true])
    func framed(tls: Bool) async throws {
        #expect(try await end(of: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", tls: tls) == "hi")
        #expect(try await end(of: chunk, tls: tls, version: "1.1") == "2\r\nhi\r\n")
    }

    @Test("a body that is under way when the process ends is cut off with a reset", arguments: [false, true])
    func processEnds(tls: Bool) async throws {
        let seen = try await end(of: chunk, closes: false, tls: tls) { gateway, client in
            while !client.seen.withLockedValue({ $0.hasSuffix("hi") }) { try await net.loop.submit {}.get() }
            gateway.closeConnections()
        }
        #expect(seen == (tls ? "hi|reset|no close_notify" : "hi|reset"))
    }
}
