import Crypto
import Foundation
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import Proxy
import Testing
import X509

@Suite struct TLSALPNChallengeTests {
    private static let text = "a-token-of-challenge-xxxxxx.thumbprint"

    private func challenge() throws -> ACMEChallenge {
        ACMEChallenge(
            type: .tlsALPN01, name: try patterns("app.example.com")[0], token: "a-token-of-challenge-xxxxxx", keyAuthorization: Self.text)
    }

    @Test("the certificate is for the one name, with the critical digest of RFC 8737")
    func certificate() throws {
        let stored = try TLSALPNCertificate.make(for: try challenge(), now: testNow)
        let certificate = try Certificate(derEncoded: stored.leafDER)
        #expect(stored.names.map(\.name) == ["app.example.com"])
        let identifier = try #require(certificate.extensions[oid: [1, 3, 6, 1, 5, 5, 7, 1, 31]])
        #expect(identifier.critical)
        #expect(Array(identifier.value) == [4, 32] + Array(SHA256.hash(data: Data(Self.text.utf8))))
        #expect(certificate.issuer == certificate.subject)
    }

    /// The protocol that was agreed on and the leaf that was shown; nil if there was no handshake.
    private func handshake(_ port: Int, protocols: [String]) async throws -> (protocol: String?, leaf: Certificate)? {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = protocols
        configuration.certificateVerification = .none
        let context = try NIOSSLContext(configuration: configuration)
        let promise = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: (String?, Certificate)?.self)
        _ = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = try NIOSSLClientHandler(context: context, serverHostname: "app.example.com")
                    try channel.pipeline.syncOperations.addHandlers(handler, End(handler, promise))
                }
            }
            .connectTimeout(.seconds(5)).connect(host: "127.0.0.1", port: port).get()
        return try await promise.futureResult.get()
    }

    private final class End: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let tls: NIOSSLClientHandler
        private let promise: EventLoopPromise<(String?, Certificate)?>
        private var result: (String?, Certificate)?

        init(_ tls: NIOSSLClientHandler, _ promise: EventLoopPromise<(String?, Certificate)?>) {
            self.tls = tls
            self.promise = promise
        }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            guard case TLSUserEvent.handshakeCompleted(let name) = event else { return context.fireUserInboundEventTriggered(event) }
            if let der = try? tls.peerCertificate?.toDERBytes(), let leaf = try? Certificate(derEncoded: der) { result = (name, leaf) }
        }

        func channelInactive(context: ChannelHandlerContext) { promise.succeed(result) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    @Test(
        "a validation is shown its certificate and nothing else happens; without a challenge it ends in alert 120", .timeLimit(.minutes(1)))
    func handshakes() async throws {
        let scratch = try ScratchDirectory()
        let board = ChallengeBoard()
        var configuration = TLSFrontConfiguration(domains: ["app.example.com"], stateDirectory: scratch.path)
        configuration.challenges = board
        let selector = try CertificateSelector(
            configuration: configuration, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(selector.makeHandler()) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(server.localAddress?.port)
        #expect(try await handshake(port, protocols: ["acme-tls/1"]) == nil)
        #expect(selector.refusals == [.noChallenge: 1])
        let stored = try TLSALPNCertificate.make(for: try challenge(), now: Date())
        board.set(context: try TLSALPNCertificate.context(stored), of: Self.text, for: "app.example.com")
        let shown = try #require(try await handshake(port, protocols: ["acme-tls/1"]))
        #expect(shown.protocol == "acme-tls/1" && shown.leaf.extensions[oid: [1, 3, 6, 1, 5, 5, 7, 1, 31]] != nil)
        #expect(!board.removeContext(of: "another", for: "app.example.com"))
        #expect(board.removeContext(of: Self.text, for: "app.example.com"))
        #expect(try await handshake(port, protocols: ["acme-tls/1"]) == nil)
        try await server.close()
    }
}
