import NIOCore
import NIOEmbedded
import Proxy
import Testing

@Suite struct BackPressureTests {
    private func readCount(_ channel: EmbeddedChannel) throws -> Int {
        try channel.pipeline.syncOperations.handler(type: ReadCounter.self).count
    }

    private func setWritable(_ writable: Bool, _ channel: EmbeddedChannel) {
        channel.isWritable = writable
        channel.pipeline.fireChannelWritabilityChanged()
    }

    @Test("a client that takes nothing stops the reading from the upstream, and only that")
    func slowClient() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("GET /a HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        try proxy.respond("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        let upstream = try proxy.upstream()
        upstream.read()
        let before = try readCount(upstream)
        setWritable(false, proxy.client)
        upstream.read()
        upstream.read()
        #expect(try readCount(upstream) == before)
        setWritable(true, proxy.client)
        #expect(try readCount(upstream) == before + 1)
    }

    @Test("a connection taken while the client takes nothing starts held back")
    func slowFromTheStart() throws {
        let proxy = try EmbeddedProxy()
        proxy.answerConnects(.wait)
        try proxy.send("GET /a HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        setWritable(false, proxy.client)
        try proxy.completeConnect()
        let upstream = try proxy.upstream()
        let before = try readCount(upstream)
        upstream.read()
        #expect(try readCount(upstream) == before)
        setWritable(true, proxy.client)
        #expect(try readCount(upstream) == before + 1)
    }

    @Test("an upstream that takes nothing stops the reading from the client")
    func slowUpstream() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("POST /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 1000\r\n\r\nx")
        proxy.client.read()
        let before = proxy.clientReads.count
        setWritable(false, try proxy.upstream())
        proxy.client.read()
        #expect(proxy.clientReads.count == before)
        setWritable(true, try proxy.upstream())
        #expect(proxy.clientReads.count == before + 1)
    }

    @Test("nothing is read ahead of the answer, so pipelining fills no memory")
    func noReadingAhead() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("GET /a HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        let before = proxy.clientReads.count
        proxy.client.read()
        #expect(proxy.clientReads.count == before)
        try proxy.respond("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(proxy.clientReads.count == before + 1)
    }

    @Test("a client that sends requests and takes no answers gets no more of them until it does")
    func answersWithoutReader() throws {
        let proxy = try EmbeddedProxy()
        let lost = "GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n"
        setWritable(false, proxy.client)
        let before = proxy.clientReads.count
        proxy.client.read()
        #expect(proxy.clientReads.count == before)
        try proxy.send(lost + lost)
        #expect(try proxy.received() == "")
        setWritable(true, proxy.client)
        #expect(try proxy.received().ranges(of: "Tunnel not found").count == 2)
        #expect(proxy.clientReads.count == before + 1)
    }

    @Test("requests that wait for room are answered although the client has ended its side")
    func endBehindQueue() throws {
        let proxy = try EmbeddedProxy()
        setWritable(false, proxy.client)
        try proxy.send("GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n")
        proxy.client.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        #expect(proxy.client.isActive)
        setWritable(true, proxy.client)
        #expect(try proxy.received().contains("Tunnel not found"))
        #expect(!proxy.client.isActive)
    }
}
