import Crypto
import FoundationEssentials
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL
import SwiftASN1
import X509

/// A mail server that says what a test wants, and keeps what it was told.
final class SMTPStub: Sendable {
    struct Script: Sendable {
        var greeting = "220 stub"
        var features = ["8BITMIME", "AUTH PLAIN LOGIN"]
        /// By the first characters of the command, the longest first; else the usual answer.
        var answers: [String: String] = [:]
        var tls: NIOSSLContext?
        /// TLS from the first byte; else STARTTLS is offered where there is a context.
        var isImplicit = false
        /// Says nothing more behind this command.
        var stallsBehind: String?
    }

    /// What came in clear and through TLS, line by line.
    struct Seen: Sendable, Equatable {
        var lines: [String] = []
        var message: [String] = []
        var encryptedLines = 0
        /// Lines that do not end with CRLF.
        var bareLines = 0
    }

    let seen = NIOLockedValueBox(Seen())
    private let channel: any Channel

    init(_ script: Script = Script()) async throws {
        let seen = seen
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls = script.tls, script.isImplicit {
                        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls))
                    }
                    try channel.pipeline.syncOperations.addHandler(Handler(script, seen))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    var address: String { "127.0.0.1:\(channel.localAddress?.port ?? 0)" }
    func close() async throws { try await channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let script: Script
        private let seen: NIOLockedValueBox<Seen>
        private var pending = ByteBuffer()
        private var isData = false
        private var isEncrypted: Bool

        init(_ script: Script, _ seen: NIOLockedValueBox<Seen>) {
            self.script = script
            self.seen = seen
            isEncrypted = script.isImplicit
        }

        func channelActive(context: ChannelHandlerContext) { say(script.greeting, context) }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var bytes = unwrapInboundIn(data)
            pending.writeBuffer(&bytes)
            while let end = pending.readableBytesView.firstIndex(of: 0x0A) {
                let line = pending.readString(length: end - pending.readerIndex + 1) ?? ""
                // CRLF is one character.
                if !line.hasSuffix("\r\n") { seen.withLockedValue { $0.bareLines += 1 } }
                handle(String(line.dropLast(1)), context)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

        private func handle(_ line: String, _ context: ChannelHandlerContext) {
            if isData {
                guard line == "." else { return seen.withLockedValue { $0.message.append(line) } }
                isData = false
                return say(script.answers["."] ?? "250 taken", context)
            }
            seen.withLockedValue {
                $0.lines.append(line)
                if isEncrypted { $0.encryptedLines += 1 }
            }
            if let stall = script.stallsBehind, line.hasPrefix(stall) { return }
            let special = script.answers.keys.filter { line.hasPrefix($0) }.max { $0.count < $1.count }
            let answer = special.flatMap { script.answers[$0] } ?? usual(line)
            say(answer, context)
            if line == "STARTTLS", answer.hasPrefix("220"), let tls = script.tls {
                isEncrypted = true
                try? context.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls), position: .first)
            }
            if line == "DATA", answer.hasPrefix("354") { isData = true }
        }

        private func usual(_ line: String) -> String {
            switch line.prefix(while: { $0 != " " && $0 != ":" }) {
            case "EHLO":
                let features = script.features + (script.tls == nil || isEncrypted ? [] : ["STARTTLS"])
                return (["250-stub"] + features.map { "250-\($0)" } + ["250 HELP"]).joined(separator: "\r\n")
            case "STARTTLS": return "220 go on"
            case "AUTH": return line.hasPrefix("AUTH PLAIN ") ? "235 welcome" : "334 VXNlcm5hbWU6"
            case "MAIL", "RCPT", "HELO": return "250 ok"
            case "DATA": return "354 go on"
            case "QUIT": return "221 bye"
            default: return "334 UGFzc3dvcmQ6"
            }
        }

        private func say(_ text: String, _ context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text + "\r\n")), promise: nil)
        }
    }
}

/// A root of one's own and a server of 127.0.0.1 below it.
struct TestAuthority {
    let rootPEM: String
    let server: NIOSSLContext

    init(address: [UInt8] = [127, 0, 0, 1]) throws {
        let (rootKey, leafKey) = (P256.Signing.PrivateKey(), P256.Signing.PrivateKey())
        let name = try DistinguishedName { CommonName("test root") }
        func make(_ key: P256.Signing.PrivateKey, _ subject: DistinguishedName, _ extensions: Certificate.Extensions) throws -> String {
            try Certificate(
                version: .v3, serialNumber: .init(), publicKey: .init(key.publicKey), notValidBefore: Date() - 3_600,
                notValidAfter: Date() + 86_400, issuer: name, subject: subject, extensions: extensions, issuerPrivateKey: .init(rootKey)
            ).serializeAsPEM().pemString
        }
        rootPEM = try make(
            rootKey, name,
            try .init {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: nil))
                Critical(KeyUsage(keyCertSign: true))
            })
        let leaf = try make(
            leafKey, try DistinguishedName { CommonName("server") },
            try .init {
                SubjectAlternativeNames([.ipAddress(ASN1OctetString(contentBytes: address[...])), .dnsName("localhost")])
                try ExtendedKeyUsage([.serverAuth])
            })
        server = try NIOSSLContext(
            configuration: .makeServerConfiguration(
                certificateChain: [.certificate(try NIOSSLCertificate(bytes: Array(leaf.utf8), format: .pem))],
                privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(leafKey.pemRepresentation.utf8), format: .pem))))
    }
}
