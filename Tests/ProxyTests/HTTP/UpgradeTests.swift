import NIOCore
import NIOEmbedded
import NIOExtras
import Proxy
import Testing

@Suite struct UpgradeTests {
    static let handshake =
        "GET /chat HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    static let accept =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

    private func opened() throws -> EmbeddedProxy {
        let proxy = try EmbeddedProxy()
        try proxy.send(Self.handshake)
        _ = try proxy.forwarded()
        try proxy.respond(Self.accept)
        proxy.loop.run()
        _ = try proxy.received()
        return proxy
    }

    private func text(_ channel: EmbeddedChannel) throws -> String { try EmbeddedProxy.drain(channel) }

    @Test("a WebSocket handshake passes with its own fields, and the 101 comes back")
    func handshakePasses() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(Self.handshake)
        let forwarded = try proxy.forwarded()
        #expect(forwarded.hasPrefix("GET /chat HTTP/1.1\r\nHost: app.example.com\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"))
        #expect(forwarded.hasSuffix("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
        try proxy.respond(Self.accept)
        #expect(
            try proxy.received() == "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                + "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    }

    @Test("after the 101 bytes pass both ways as they are")
    func relay() throws {
        let proxy = try opened()
        try proxy.send("\u{1}client \r\n\r\nGET")
        #expect(try proxy.forwarded() == "\u{1}client \r\n\r\nGET")
        try proxy.respond("\u{2}HTTP/1.1 500\r\n\r\n")
        #expect(try proxy.received() == "\u{2}HTTP/1.1 500\r\n\r\n")
        proxy.advance(by: .minutes(60))
        #expect(proxy.client.isActive)
    }

    @Test("bytes that came with the handshake or with the 101 are not lost")
    func earlyBytes() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(Self.handshake + "early")
        #expect(!(try proxy.forwarded()).contains("early"))
        try proxy.respond(Self.accept + "hello")
        proxy.loop.run()
        #expect(try proxy.received().hasSuffix("\r\n\r\nhello"))
        #expect(try proxy.forwarded() == "early")
    }

    @Test("one side's end is the other side's")
    func closing() throws {
        let one = try opened()
        try one.client.close().wait()
        #expect(!(try one.upstream().isActive))
        let other = try opened()
        try other.upstream().close().wait()
        #expect(!other.client.isActive)
    }

    @Test("a relay reads only what the other side takes")
    func backPressure() throws {
        let proxy = try opened()
        let upstream = try proxy.upstream()
        let counter = try upstream.pipeline.syncOperations.handler(type: ReadCounter.self)
        proxy.client.isWritable = false
        proxy.client.pipeline.fireChannelWritabilityChanged()
        let before = counter.count
        upstream.read()
        #expect(counter.count == before)
        proxy.client.isWritable = true
        proxy.client.pipeline.fireChannelWritabilityChanged()
        #expect(counter.count == before + 1)
    }

    @Test("an upstream that declines is answered like any other, and the connection goes on")
    func declined() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(Self.handshake)
        try proxy.respond("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        #expect(try proxy.received() == "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        _ = try proxy.forwarded()
        try proxy.send("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        #expect(try proxy.forwarded().hasPrefix("GET / "))
    }

    @Test("a tab is a blank in Connection, both ways")
    func tab() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(Self.handshake.replacing("Connection: keep-alive, Upgrade", with: "Connection: Upgrade\t, x"))
        #expect(try proxy.forwarded().hasSuffix("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
        try proxy.respond("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\t, x\r\n\r\n")
        #expect(try proxy.received().hasPrefix("HTTP/1.1 101 "))
    }

    @Test("a drain puts a close frame of 1001 behind the frame in hand, and what follows does not pass")
    func drain() throws {
        let proxy = try opened()
        try proxy.respond("\u{1}\u{5}he")
        #expect(try proxy.received() == "\u{1}\u{5}he")
        proxy.client.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        #expect(try proxy.received() == "")
        let upstream = try proxy.upstream()
        let toUpstream = try upstream.readOutbound(as: IOData.self)
        #expect(toUpstream == .byteBuffer(ByteBuffer(bytes: [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9])))
        _ = try upstream.writeInbound(ByteBuffer(bytes: Array("llo".utf8) + [0x01, 0x01, 0x78]))
        var seen: [UInt8] = []
        while case .byteBuffer(let bytes)? = try proxy.client.readOutbound(as: IOData.self) { seen += Array(bytes.readableBytesView) }
        #expect(seen == Array("llo".utf8) + [0x01, 0x01, 0x78, 0x88, 0x02, 0x03, 0xE9])
        try proxy.respond("\u{1}\u{1}y")
        #expect(try proxy.received() == "")
        proxy.advance(by: .seconds(3))
        #expect(!proxy.client.isActive)
    }

    @Test(
        "whatever else asks for an upgrade goes on without",
        arguments: [
            RawMessage(
                "h2c",
                "GET / HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\n\r\n"
            ),
            RawMessage(
                "two tokens",
                "GET / HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ),
            RawMessage(
                "version 8",
                "GET / HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 8\r\n\r\n"
            ),
            RawMessage(
                "no Connection",
                "GET / HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ),
            RawMessage(
                "POST",
                "POST / HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
            ),
            RawMessage(
                "TLS",
                "GET / HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: TLS/1.2\r\nConnection: Upgrade\r\n\r\n"),
        ])
    func otherUpgrades(_ request: RawMessage) throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(request.bytes)
        let forwarded = try proxy.forwarded()
        #expect(!forwarded.contains("Upgrade:") && !forwarded.contains("Connection:") && !forwarded.contains("HTTP2"))
        try proxy.respond("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
        #expect(try proxy.received().hasPrefix("HTTP/1.1 502 "))
    }
}
