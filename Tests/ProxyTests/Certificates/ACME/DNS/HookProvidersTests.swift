import Glibc
import Inet
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite struct WebhookProviderTests {
    private static let record = TXTRecord(name: "_acme-challenge.example.com", value: "va\"lue")

    @Test("both actions are posted as JSON with the bearer token; any 2xx is success")
    func requests() async throws {
        let stub = try await APIStub { _ in .init(status: 204) }
        let provider = WebhookProvider(url: try stub.url, token: Secret("hook-token"), group: MultiThreadedEventLoopGroup.singleton)
        try await provider.add(Self.record)
        try await provider.remove(Self.record)
        let seen = stub.seen.withLockedValue { $0 }
        #expect(
            seen.map(\.body) == [
                #"{"action":"present","name":"_acme-challenge.example.com.","value":"va\"lue"}"#,
                #"{"action":"cleanup","name":"_acme-challenge.example.com.","value":"va\"lue"}"#,
            ])
        #expect(seen.allSatisfy { $0.method == .POST && $0.fields["Authorization"] == ["Bearer hook-token"] })
        #expect(seen.allSatisfy { $0.fields["Content-Type"] == ["application/json"] })
        try await stub.close()
    }

    @Test("errors name the server and never the path, which the server may repeat")
    func secretPath() async throws {
        let stub = try await APIStub { request in .init(status: 500, body: "Cannot POST \(request.uri)") }
        let origin = try stub.url.text
        let provider = WebhookProvider(
            url: try ACMEURL(origin + "/sEcReT?k=1"), token: nil, group: MultiThreadedEventLoopGroup.singleton)
        #expect(await failureText { try await provider.add(Self.record) } == "webhook: POST \(origin): 500: Cannot POST (secret)")
        try await stub.close()
        let text = await failureText { try await provider.add(Self.record) } ?? ""
        #expect(text.hasPrefix("webhook: POST \(origin): ") && !text.contains("sEcReT"))
    }

    @Test("the limit is for the whole answer, not for its head")
    func slowBody() async throws {
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton).childChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Dripping()) }
        }.bind(host: "127.0.0.1", port: 0).get()
        let url = try ACMEURL("http://127.0.0.1:\(server.localAddress?.port ?? 0)/x")
        let client = APIClient(group: MultiThreadedEventLoopGroup.singleton, secrets: [], limit: .milliseconds(500))
        let text = await failureText { _ = try await client.send(APIClient.Request(.GET, url)) } ?? ""
        #expect(text.hasSuffix("no whole answer within 0.5 seconds"))
        try await server.close()
    }

    /// Answers with a head, and then one byte at a time.
    private final class Dripping: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let channel = context.channel
            channel.writeAndFlush(ByteBuffer(string: "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"), promise: nil)
            let drip = channel.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(50)) { _ in
                channel.writeAndFlush(ByteBuffer(string: "x"), promise: nil)
            }
            channel.closeFuture.whenComplete { _ in drip.cancel() }
        }
    }

    @Test("anything else is an error with the body's beginning; redirects are not followed")
    func errors() async throws {
        for (answer, expected) in [
            (HTTPStub.Answer(status: 500, body: "zone\nlocked"), #"500: zone\u{A}locked"#),
            (HTTPStub.Answer(status: 302, fields: [("Location", "/b")]), "302: (empty); redirects are not followed"),
        ] {
            let stub = try await APIStub { _ in answer }
            let provider = WebhookProvider(url: try stub.url, token: nil, group: MultiThreadedEventLoopGroup.singleton)
            #expect(await failureText { try await provider.add(Self.record) }?.contains(expected) == true)
            #expect(stub.seen.withLockedValue { $0.count } == 1)
            try await stub.close()
        }
    }
}

@Suite struct ExecProviderTests {
    private let directory = TemporaryDirectory()

    private func hook(_ text: String) throws -> String {
        let path = directory.file("hook")
        try SystemFiles.create(path, Array(("#!/bin/sh\n" + text + "\n").utf8))
        #expect(chmod(path, 0o700) == 0)
        return path
    }

    @Test("action, name with its final dot and value are arguments; of the environment PATH, HOME and LANG remain")
    func arguments() async throws {
        let path = try hook(#"{ echo "$@"; env | cut -d= -f1 | sort | tr '\n' ' '; } >> "$HOME/log""#)
        let provider = ExecProvider(
            command: path, environment: ["PATH": "/usr/bin:/bin", "HOME": directory.path, "LANG": "C", "AWS_SECRET_ACCESS_KEY": "x"])
        let record = TXTRecord(name: "_acme-challenge.example.com", value: "v-1; $(id)")
        try await provider.add(record)
        try await provider.remove(record)
        let log = String(decoding: try SystemFiles.read(directory.file("log")).bytes, as: UTF8.self)
        #expect(
            log == "present _acme-challenge.example.com. v-1; $(id)\nHOME LANG PATH PWD "
                + "cleanup _acme-challenge.example.com. v-1; $(id)\nHOME LANG PATH PWD ")
    }

    @Test("a status other than 0 is an error with what the program wrote")
    func failure() async throws {
        let provider = ExecProvider(command: try hook("echo no such zone >&2; exit 4"), environment: [:])
        let text = await failureText { try await provider.add(TXTRecord(name: "a.b", value: "v")) }
        #expect(text == "exec: \(directory.file("hook")) ended with status 4: no such zone")
    }
}

/// Each provider fails in every way that can be had, at servers that repeat in their errors all that they were sent.
@Suite struct DNSSecrecyTests {
    private static let secrets = [
        "cf-secret-token", "aws-secret-key-1", "aws-session-tok", "hook-bearer-tok", "c3dvcmRmaXNoLXN3b3JkZmlzaA==",
    ]

    @Test("no secret is in any error or line of the log")
    func secrecy() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let status = NIOLockedValueBox(403)
        let stub = try await APIStub { request in
            let echo = (request.fields.map { "\($0.name): \($0.value)" } + [request.body]).joined(separator: " ")
            let code = status.withLockedValue { $0 }
            let json = echo.filter { $0 != "\"" && $0 != "\\" }
            switch code {
            case 200: return .init(body: echo)
            case 400: return .init(status: 400, body: #"{"success":false,"errors":[{"code":1,"message":"\#(json)"}]}"#)
            case 401:
                return .init(
                    status: 401, body: "<E><Error><Code>AccessDenied</Code><Message>\(XMLElement.escape(echo))</Message></Error></E>")
            default: return .init(status: code, body: echo)
            }
        }
        let silent = try await DNSStub { query, _, _ in
            [DNSMessage(id: query.id, flags: query.flags | 0x8009, questions: query.questions).encode()]
        }
        let signer = SigV4(
            accessKeyID: "AKID", secretAccessKey: Secret(Self.secrets[1]), sessionToken: Secret(Self.secrets[2]), region: "r", service: "s")
        let key = try #require(TSIGKey(name: "k", algorithm: .sha256, secret: Secret(Self.secrets[4])))
        let providers: [any DNSProvider] = [
            CloudflareProvider(token: Secret(Self.secrets[0]), endpoint: try stub.url, group: group),
            Route53Provider(signer: signer, hostedZone: nil, endpoint: try stub.url, group: group),
            Route53Provider(signer: signer, hostedZone: "Z", endpoint: try stub.url, group: group),
            WebhookProvider(url: try stub.url, token: Secret(Self.secrets[3]), group: group),
            RFC2136Provider(server: silent.endpoint, zone: DNSName("example.com"), key: key, group: group),
            ExecProvider(command: "/bin/false", environment: ["AWS_SECRET_ACCESS_KEY": Self.secrets[1]]),
        ]
        let lines = RecordingLog.Lines()
        let resolver = DNSResolver(servers: [silent.endpoint], group: group)
        let challenge = ACMEChallenge(
            type: .dns01, name: try #require(DomainPattern("example.com")), token: "t", keyAuthorization: "t.x")
        var texts: [String] = []
        for code in [403, 400, 401, 200] {
            status.withLockedValue { $0 = code }
            for provider in providers {
                let record = TXTRecord(name: challenge.dnsName, value: challenge.dnsValue)
                let isHook = provider.label == "webhook" && code == 200
                let texts2 = [
                    await failureText { try await provider.add(record) }, await failureText { try await provider.remove(record) },
                ].compactMap { $0 }
                #expect(texts2.count == (isHook ? 0 : 2), "\(provider.label) \(code)")
                texts += texts2 + ["\(provider)", String(reflecting: provider)]
                var dumped = ""
                dump(provider, to: &dumped)
                texts.append(dumped)
                let presenter = DNSChallenge(
                    provider: provider, resolver: resolver, propagation: DNSPropagation(resolver: resolver, limit: .zero, patience: .zero),
                    logger: Logger(label: "test") { _ in RecordingLog(lines: lines) })
                if let text = await failureText({ try await presenter.present(challenge) }) { texts.append(text) }
                await presenter.withdraw(challenge)
            }
        }
        texts += lines.all.map { "\($0.text) \($0.metadata)" }
        #expect(lines.texts(.warning).count >= 20)
        for secret in Self.secrets {
            for text in texts { #expect(!text.contains(secret), "\(text.prefix(200))") }
        }
        try await stub.close()
        try await silent.close()
    }
}
