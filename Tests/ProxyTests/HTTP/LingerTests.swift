import NIOCore
import NIOEmbedded
import Proxy
import Testing

@Suite struct LingerTests {
    /// Like a TLS handler whose handshake has not ended: the output is never closed.
    private final class NeverClosing: ChannelOutboundHandler {
        typealias OutboundIn = ByteBuffer
        func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
            if case .output = mode { held = promise } else { context.close(mode: mode, promise: promise) }
        }
        private var held: EventLoopPromise<Void>?
        func handlerRemoved(context: ChannelHandlerContext) { held?.fail(ChannelError.eof) }
    }

    private func lingering(after request: String) throws -> EmbeddedProxy {
        let proxy = try EmbeddedProxy()
        try proxy.client.pipeline.syncOperations.addHandler(NeverClosing(), position: .first)
        try proxy.send(request)
        proxy.loop.run()
        return proxy
    }

    private let refused =
        "GET / HTTP/1.1\r\nHost: nobody.example.com\r\nConnection: close\r\n\r\n"

    @Test("what a client sends behind the last answer is not kept")
    func nothingKept() throws {
        let proxy = try lingering(after: refused)
        #expect(try proxy.received().hasPrefix("HTTP/1.1 404 "))
        #expect(proxy.client.isActive)
        try proxy.send(String(repeating: "x", count: 100_000))
        try proxy.send("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        #expect(proxy.upstreams.isEmpty)
        #expect(try proxy.received() == "")
    }

    @Test("a connection whose output cannot be closed is closed all the same")
    func outputStaysOpen() throws {
        let proxy = try lingering(after: refused)
        proxy.advance(by: .milliseconds(1900))
        #expect(proxy.client.isActive)
        proxy.advance(by: .seconds(1))
        #expect(!proxy.client.isActive)
    }
}
