import Inet
import NIOCore
import NIOEmbedded
import Proxy
import Testing

/// Mutated requests and responses in any order with ends, errors, time and back-pressure: nothing traps, every connection ends.
@Suite struct ProxyFuzzTests {
    private static let requests = [
        "GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n", "HEAD /a?b HTTP/1.0\r\nHost: app.example.com\r\nConnection: keep-alive\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\nGET / HTTP/1.1\r\nHost: off.example.com\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-End: 1\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a.wild.example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "OPTIONS * HTTP/1.1\r\nHost: app.example.com\r\nProxy-Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET http://app.example.com/x HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\t, close\r\nUpgrade: websocket\r\n\r\n",
        UpgradeTests.handshake, UpgradeTests.handshake + "bytes ahead of their time", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]

    private static let responses = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-End: 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\t\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        UpgradeTests.accept, UpgradeTests.accept + "frames", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        "HTTP/1.1 042 Odd\r\n\r\n",
    ]

    @Test("mutated traffic in any order traps nowhere, and every connection ends", arguments: 0..<16)
    func any(_ seed: UInt64) throws {
        let random = RandomSource.seeded(seed)
        func below(_ limit: Int) -> Int { Int(random.nextUInt32()) % max(1, limit) }
        for round in 0..<250 {
            let proxy = try EmbeddedProxy()
            for _ in 0..<(2 + below(10)) { try? step(proxy, below) }
            proxy.client.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
            for _ in 0..<20 where proxy.client.isActive { proxy.advance(by: .seconds(61)) }
            #expect(!proxy.client.isActive, "seed \(seed), round \(round)")
        }
    }

    private func step(_ proxy: EmbeddedProxy, _ below: (Int) -> Int) throws {
        switch below(16) {
        case 0..<6: try send(Self.requests[below(Self.requests.count)], to: proxy.client, below)
        case 6..<11:
            guard let upstream = proxy.upstreams.isEmpty ? nil : proxy.upstreams[below(proxy.upstreams.count)] else { return }
            try send(Self.responses[below(Self.responses.count)], to: upstream, below)
        case 11:
            let channel = proxy.upstreams.last ?? proxy.client
            channel.isWritable.toggle()
            channel.pipeline.fireChannelWritabilityChanged()
        case 12:
            proxy.client.isWritable.toggle()
            proxy.client.pipeline.fireChannelWritabilityChanged()
        case 13: proxy.upstreams.last?.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        case 14: proxy.advance(by: .seconds(Int64(below(30))))
        default: proxy.answerConnects(.wait, .fail(.refused), .connect)
        }
        if below(2) == 0 { proxy.loop.run() }
    }

    /// In pieces, some with a byte changed.
    private func send(_ text: String, to channel: EmbeddedChannel, _ below: (Int) -> Int) throws {
        var bytes = Array(text.utf8)
        let alphabet = Array("\r\n\t :,;a0/\0é".utf8)
        if below(2) == 0 { bytes[below(bytes.count)] = alphabet[below(alphabet.count)] }
        while !bytes.isEmpty, channel.isActive {
            let count = below(4) == 0 ? 1 + below(bytes.count) : bytes.count
            _ = try channel.writeInbound(ByteBuffer(bytes: bytes[..<count]))
            bytes.removeFirst(count)
        }
    }
}
