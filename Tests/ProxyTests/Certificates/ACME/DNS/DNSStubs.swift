import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix
import Proxy

/// A plain HTTP server whose answers a function makes.
final class APIStub: Sendable {
    struct Request: Sendable {
        var method: HTTPMethod
        var uri: String
        var fields: HTTPHeaders
        var body: String
    }

    let seen = NIOLockedValueBox<[Request]>([])
    private let channel: any Channel

    init(_ answer: @escaping @Sendable (Request) -> HTTPStub.Answer) async throws {
        let seen = seen
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(
                        Handler {
                            request in
                            seen.withLockedValue { $0.append(request) }
                            return answer(request)
                        })
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    var url: ACMEURL { get throws { try ACMEURL("http://127.0.0.1:\(channel.localAddress?.port ?? 0)") } }

    func close() async throws { try await channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart
        private let answer: (Request) -> HTTPStub.Answer
        private var request: Request?

        init(_ answer: @escaping (Request) -> HTTPStub.Answer) { self.answer = answer }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head): request = Request(method: head.method, uri: head.uri, fields: head.headers, body: "")
            case .body(let piece): request?.body += String(buffer: piece)
            case .end:
                guard let request else { return }
                let answer = answer(request)
                if answer.hangsUp { return context.close(promise: nil) }
                var fields = HTTPHeaders(answer.fields)
                fields.add(name: "Content-Length", value: "\(answer.body.utf8.count)")
                context.write(
                    wrapOutboundOut(.head(.init(version: .http1_1, status: .init(statusCode: answer.status), headers: fields))),
                    promise: nil)
                context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: answer.body)))), promise: nil)
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
        }
    }
}

/// A DNS server by UDP and TCP at one port of this machine, whose answers a function makes; no answer is silence.
final class DNSStub: Sendable {
    typealias Answer = @Sendable (_ query: DNSMessage, _ bytes: [UInt8], _ isTCP: Bool) -> [[UInt8]]
    private let datagrams: any Channel
    private let streams: any Channel

    init(_ answer: @escaping Answer) async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        // A port that is free for datagrams may be in use by a TCP connection.
        for attempt in 1... {
            let datagrams = try await DatagramBootstrap(group: group).channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Datagrams(answer)) }
            }.bind(host: "127.0.0.1", port: 0).get()
            do {
                streams = try await ServerBootstrap(group: group).childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Streams(answer)) }
                }.bind(host: "127.0.0.1", port: datagrams.localAddress?.port ?? 0).get()
                self.datagrams = datagrams
                return
            } catch  where attempt < 50 {
                try await datagrams.close()
            }
        }
        throw FixtureError(text: "no port")
    }

    /// Answers from a zone.
    convenience init(_ zone: NIOLockedValueBox<StubZone>) async throws {
        try await self.init { query, _, _ in [zone.withLockedValue { $0.answer(query) }.encode()] }
    }

    var port: UInt16 { UInt16(datagrams.localAddress?.port ?? 0) }
    var endpoint: SocketEndpoint { SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: port) }

    func close() async throws {
        try await datagrams.close()
        try await streams.close()
    }

    private final class Datagrams: ChannelInboundHandler {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        typealias OutboundOut = AddressedEnvelope<ByteBuffer>
        private let answer: Answer
        init(_ answer: @escaping Answer) { self.answer = answer }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let envelope = unwrapInboundIn(data)
            let bytes = Array(envelope.data.readableBytesView)
            guard let query = DNSMessage(bytes) else { return }
            for reply in answer(query, bytes, false) {
                context.writeAndFlush(
                    wrapOutboundOut(AddressedEnvelope(remoteAddress: envelope.remoteAddress, data: ByteBuffer(bytes: reply))), promise: nil)
            }
        }
    }

    private final class Streams: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let answer: Answer
        private var buffer = ByteBuffer()
        init(_ answer: @escaping Answer) { self.answer = answer }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var piece = unwrapInboundIn(data)
            buffer.writeBuffer(&piece)
            guard let length = buffer.getInteger(at: buffer.readerIndex, as: UInt16.self), buffer.readableBytes >= 2 + Int(length) else {
                return
            }
            buffer.moveReaderIndex(forwardBy: 2)
            let bytes = buffer.readBytes(length: Int(length)) ?? []
            guard let query = DNSMessage(bytes) else { return }
            for reply in answer(query, bytes, true) {
                var output = ByteBuffer()
                output.writeInteger(UInt16(reply.count))
                output.writeBytes(reply)
                context.writeAndFlush(wrapOutboundOut(output), promise: nil)
            }
        }
    }
}

/// A zone with its records, as its own server answers.
struct StubZone: Sendable {
    var name: DNSName
    var records: [DNSMessage.Record]

    init(_ name: String, _ records: [DNSMessage.Record]) {
        self.name = DNSName(name) ?? .root
        self.records = records + [.init(self.name, DNSType.soa, timeToLive: 5, data: .other([0, 0] + [UInt8](repeating: 0, count: 20)))]
    }

    func answer(_ query: DNSMessage) -> DNSMessage {
        var reply = DNSMessage(id: query.id, flags: query.flags | DNSFlags.response | DNSFlags.authoritative, questions: query.questions)
        guard let question = query.questions.first else { return reply }
        let there = records.filter { $0.name == question.name }
        reply.answers = there.filter { $0.type == question.type || $0.type == DNSType.cname }
        if reply.answers.isEmpty { reply.authorities = records.filter { $0.type == DNSType.soa } }
        if there.isEmpty { reply.flags |= 3 }
        return reply
    }

    static func record(_ name: String, _ type: UInt16, _ data: DNSMessage.Data) -> DNSMessage.Record {
        .init(DNSName(name) ?? .root, type, timeToLive: 5, data: data)
    }

    static func name(_ name: String, _ type: UInt16, _ target: String) -> DNSMessage.Record {
        record(name, type, .name(DNSName(target) ?? .root))
    }

    static func text(_ name: String, _ value: String) -> DNSMessage.Record { record(name, DNSType.txt, .text([Array(value.utf8)])) }
    static func address(_ name: String, _ address: IPAddress) -> DNSMessage.Record { record(name, DNSType.a, .address(address)) }

    /// `example.com` with one server at this machine.
    static func example(_ more: [DNSMessage.Record] = []) -> StubZone {
        StubZone(
            "example.com",
            [name("example.com", DNSType.ns, "ns.example.com"), address("ns.example.com", IPAddress(v4: 127, 0, 0, 1))] + more)
    }
}

/// The text of what a call throws; nil if it throws nothing.
func failureText(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch {
        return "\(error)"
    }
}

func hexadecimal(_ text: String) -> [UInt8] {
    let digits = Array(text)
    return stride(from: 0, to: digits.count - 1, by: 2).compactMap { UInt8(String(digits[$0...($0 + 1)]), radix: 16) }
}
