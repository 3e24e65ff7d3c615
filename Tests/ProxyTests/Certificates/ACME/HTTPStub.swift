import FoundationEssentials
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix

/// A plain HTTP server that gives each path its answer, and 404 to the others.
final class HTTPStub: Sendable {
    struct Answer: Sendable {
        var status = 200
        var fields: [(String, String)] = []
        var body = ""
        /// Closes without an answer.
        var hangsUp = false
    }

    let answers = NIOLockedValueBox<[String: Answer]>([:])
    let seen = NIOLockedValueBox<[HTTPRequestHead]>([])
    private let channel: any Channel

    init(host: String = "127.0.0.1", port: Int = 0) async throws {
        let (answers, seen) = (answers, seen)
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(Handler(answers: answers, seen: seen))
                }
            }
            .bind(host: host, port: port).get()
    }

    var url: String { "http://127.0.0.1:\(channel.localAddress?.port ?? 0)" }

    func close() async throws { try await channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart
        private let answers: NIOLockedValueBox<[String: Answer]>
        private let seen: NIOLockedValueBox<[HTTPRequestHead]>
        private var head: HTTPRequestHead?

        init(answers: NIOLockedValueBox<[String: Answer]>, seen: NIOLockedValueBox<[HTTPRequestHead]>) {
            self.answers = answers
            self.seen = seen
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head): self.head = head
            case .body: break
            case .end:
                guard let head else { return }
                seen.withLockedValue { $0.append(head) }
                let answer = answers.withLockedValue { $0[head.uri] } ?? Answer(status: 404)
                if answer.hangsUp { return context.close(promise: nil) }
                var fields = HTTPHeaders(answer.fields)
                fields.add(name: "Content-Length", value: "\(answer.body.utf8.count)")
                context.write(
                    wrapOutboundOut(.head(.init(version: .http1_1, status: .init(statusCode: answer.status), headers: fields))),
                    promise: nil)
                if head.method != .HEAD {
                    context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: answer.body)))), promise: nil)
                }
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
        }
    }
}
