import NIOCore
import NIOEmbedded
import NIOExtras
import Proxy
import Testing

@Suite struct ProxyHandlerTests {
    let get = "GET /a HTTP/1.1\r\nHost: app.example.com\r\n\r\n"
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

    // MARK: Fields

    @Test("the agent learns who the client is, from us only")
    func forwardedFields() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(
            "GET /a HTTP/1.1\r\nHost: App.example.com:8443\r\nX-Forwarded-For: 1.2.3.4\r\nx_forwarded_for: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n"
                + "Forwarded: for=1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Ssl: on\r\nProxy: http://evil\r\nX-Other: kept\r\nCookie: a=b\r\n\r\n"
        )
        #expect(
            try proxy.forwarded()
                == "GET /a HTTP/1.1\r\nHost: app.example.com\r\nX-Other: kept\r\nCookie: a=b\r\nX-Request-Id: 0000000000000001\r\n"
                + "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-Host: app.example.com\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 198.51.100.9\r\n"
                + "Forwarded: for=198.51.100.9;host=app.example.com;proto=https\r\n\r\n")
    }

    @Test("an IPv6 client is named in brackets where the standard says so, an IPv4-mapped one as IPv4")
    func clientAddresses() throws {
        let proxy = try EmbeddedProxy()
        let client = EmbeddedChannel(loop: proxy.loop)
        client.remoteAddress = try SocketAddress(ipAddress: "2001:db8::7", port: 1)
        try proxy.service.configure(client, scheme: .http)
        try client.writeInbound(ByteBuffer(string: get))
        let forwarded = try proxy.forwarded()
        #expect(forwarded.contains("X-Real-IP: 2001:db8::7\r\n"))
        #expect(forwarded.contains("Forwarded: for=\"[2001:db8::7]\";host=app.example.com;proto=http\r\n"))

        let mapped = EmbeddedChannel(loop: proxy.loop)
        mapped.remoteAddress = try SocketAddress(ipAddress: "::ffff:192.0.2.5", port: 1)
        try proxy.service.configure(mapped, scheme: .http)
        try mapped.writeInbound(ByteBuffer(string: get))
        #expect(try proxy.forwarded().contains("X-Forwarded-For: 192.0.2.5\r\n"))
    }

    @Test("fields of one hop are removed both ways, with those that Connection names, and it cannot name ours")
    func hopByHop() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(
            "GET /a HTTP/1.1\r\nHost: app.example.com\r\nConnection: keep-alive, X-Hop, X-Forwarded-For, Host\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
                + "TE: trailers, deflate\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nX-End: 1\r\n\r\n"
        )
        let forwarded = try proxy.forwarded()
        #expect(
            forwarded.hasPrefix("GET /a HTTP/1.1\r\nHost: app.example.com\r\nX-End: 1\r\nX-Request-Id: 0000000000000001\r\n"),
            "\(forwarded)"
        )
        #expect(forwarded.hasSuffix("\r\nTE: trailers\r\nConnection: TE\r\n\r\n"))
        for name in ["X-Hop", "Keep-Alive", "Upgrade", "HTTP2", "Proxy-"] { #expect(!forwarded.contains(name)) }

        try proxy.respond(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n")
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n")
    }

    @Test("behind a gateway, Host and what the gateway said pass unchanged")
    func agentMode() throws {
        let targets = try #require(UpstreamTarget("127.0.0.1:8080"))
        let router = Router(logger: .silent)
        router.updateTunnels([TunnelConfig(id: "1", domain: "app.example.com", agentVirtualIP: try #require(targets.address), port: 8080)])
        let proxy = try EmbeddedProxy(mode: .agent, router: router, scheme: .http)
        let request =
            "GET /a HTTP/1.1\r\nHost: app.example.com\r\nX-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n\r\n"
        try proxy.send(request)
        #expect(try proxy.forwarded() == request)
    }

    @Test("64 connection options are kept to, both ways, and a message with more is refused")
    func connectionOptions() throws {
        func options(_ count: Int) -> String { (0..<count).map { "X-\($0)" }.joined(separator: ",") }
        let fields = ["Connection: \(options(65))\r\n", "Connection: \(options(40))\r\nConnection: \(options(40))\r\n"]
        for many in fields + ["Connection: \(options(2_000))\r\n"] {
            let proxy = try EmbeddedProxy()
            try proxy.send("GET /a HTTP/1.1\r\nHost: app.example.com\r\n\(many)\r\n")
            #expect(try proxy.received().hasPrefix("HTTP/1.1 400 "))
            #expect(proxy.dialed.isEmpty)
            let other = try EmbeddedProxy()
            try other.send(get)
            try? other.respond("HTTP/1.1 200 OK\r\n\(many)Content-Length: 2\r\n\r\nhi")
            #expect(try other.received().hasPrefix("HTTP/1.1 502 "))
            #expect(!(try other.upstream().isActive))
        }
        let proxy = try EmbeddedProxy()
        try proxy.send("GET /a HTTP/1.1\r\nHost: app.example.com\r\nX-63: 1\r\nConnection: , \(options(64))\r\nX-64: 1\r\n\r\n")
        let forwarded = try proxy.forwarded()
        #expect(!forwarded.contains("X-63") && forwarded.contains("X-64: 1\r\n"))
        try proxy.respond("HTTP/1.1 200 OK\r\nX-0: 1\r\nConnection: \(options(64))\r\nContent-Length: 2\r\n\r\nhi")
        #expect(try proxy.received() == ok)
    }

    // MARK: Streaming

    @Test("a request body streams with its length, a response with its own")
    func lengths() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("POST /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 6\r\n\r\nabc")
        #expect(try proxy.forwarded().hasSuffix("\r\nContent-Length: 6\r\n\r\nabc"))
        try proxy.send("def")
        #expect(try proxy.forwarded() == "def")
        try proxy.respond("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nwx")
        #expect(try proxy.received() == "HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nwx")
        try proxy.respond("yz")
        #expect(try proxy.received() == "yz")
    }

    @Test("chunks and trailers pass both ways")
    func chunksAndTrailers() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(
            "POST /a HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"
        )
        #expect(try proxy.forwarded().hasSuffix("\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"))
        try proxy.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        try proxy.respond("0\r\ngrpc-status: 0\r\n\r\n")
        #expect(try proxy.received() == "0\r\ngrpc-status: 0\r\n\r\n")
    }

    @Test("a response that ends with its connection becomes chunks, and for HTTP/1.0 the end of ours")
    func untilClose() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond("HTTP/1.1 200 OK\r\n\r\nabc")
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        try proxy.upstream().close().wait()
        #expect(try proxy.received() == "0\r\n\r\n")
        #expect(proxy.client.isActive)

        let old = try EmbeddedProxy()
        try old.send("GET /a HTTP/1.0\r\nHost: app.example.com\r\nConnection: keep-alive\r\n\r\n")
        try old.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        #expect(try old.received() == "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
        #expect(!old.client.isActive)
    }

    @Test("HTTP/1.0 may keep its connection when lengths are known")
    func http10KeepAlive() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("GET /a HTTP/1.0\r\nHost: app.example.com\r\nConnection: keep-alive\r\n\r\n")
        try proxy.respond(ok)
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi")
        #expect(proxy.client.isActive)
    }

    @Test("HEAD, 204 and 304 have no body, whatever their fields say")
    func bodiless() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("HEAD /a HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        try proxy.respond("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        try proxy.send("HEAD /a HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        try proxy.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\n\r\n")
        try proxy.send(get)
        try proxy.respond("HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n")
        #expect(try proxy.received() == "HTTP/1.1 204 No Content\r\n\r\n")
        #expect(proxy.dialed.count == 1)
        try proxy.send(get)
        try proxy.respond("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")
        #expect(try proxy.received() == "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")
        try proxy.send(get)
        #expect(proxy.dialed.count == 2, "only the 204 that speaks of a body has cost a connection")
    }

    @Test("head and small body leave as one buffer, which is one TLS record")
    func oneRecord() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        let first = try #require(try proxy.client.readOutbound(as: ByteBuffer.self))
        #expect(String(buffer: first) == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        #expect(try proxy.client.readOutbound(as: ByteBuffer.self) == nil)
    }

    @Test("Expect: 100-continue goes through to the upstream, and its 100 comes back")
    func expectContinue() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("PUT /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        #expect(try proxy.forwarded().contains("\r\nExpect: 100-continue\r\n"))
        try proxy.respond("HTTP/1.1 100 Continue\r\n\r\n")
        #expect(try proxy.received() == "HTTP/1.1 100 Continue\r\n\r\n")
        try proxy.send("ab")
        #expect(try proxy.forwarded() == "ab")
        try proxy.respond("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok)
        #expect(try proxy.received() == "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok)
    }

    @Test("at most 16 interim responses, and none to HTTP/1.0")
    func informationalLimit() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond(String(repeating: "HTTP/1.1 103 Early Hints\r\n\r\n", count: 16))
        #expect(try proxy.received().components(of: "103 Early Hints") == 16)
        try proxy.respond("HTTP/1.1 103 Early Hints\r\n\r\n")
        #expect(try proxy.received().hasPrefix("HTTP/1.1 502 "))

        let old = try EmbeddedProxy()
        try old.send("GET /a HTTP/1.0\r\nHost: app.example.com\r\n\r\n")
        try old.respond("HTTP/1.1 103 Early Hints\r\n\r\n" + ok)
        #expect(try old.received() == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    }

    // MARK: Connections

    @Test("connections are kept on both sides")
    func keepAlive() throws {
        let proxy = try EmbeddedProxy()
        for _ in 0..<3 {
            try proxy.send(get)
            #expect(try proxy.forwarded().hasPrefix("GET /a"))
            try proxy.respond(ok)
            #expect(try proxy.received() == ok)
        }
        #expect(proxy.dialed.count == 1)
        #expect(proxy.client.isActive)
    }

    @Test("pipelined requests are answered one after the other")
    func pipelining() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get + "GET /b HTTP/1.1\r\nHost: nobody.test\r\n\r\n" + "GET /c HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        #expect(try proxy.forwarded().components(of: "HTTP/1.1") == 1)
        try proxy.respond(ok)
        let answers = try proxy.received()
        #expect(answers.hasPrefix(ok + "HTTP/1.1 404 Not Found\r\n"))
        #expect(proxy.upstreams.count == 2, "the first connection is free only after the read that brought its answer")
        #expect(try proxy.forwarded().hasPrefix("GET /c "))
        try proxy.respond(ok)
        #expect(try proxy.received() == ok)
    }

    @Test("Connection: close from the client is kept to, after the answer")
    func clientCloses() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("GET /a HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n")
        #expect(!(try proxy.forwarded()).contains("Connection"))
        try proxy.respond(ok)
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        #expect(!proxy.client.isActive)
        #expect(try proxy.upstream().isActive)
    }

    @Test("a pooled connection that died is replaced, once, if the request can bear it")
    func retry() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond(ok)
        _ = try proxy.received()
        try proxy.send(get)
        try proxy.upstream().close().wait()
        #expect(proxy.dialed.count == 2)
        #expect(try proxy.forwarded().hasPrefix("GET /a "))
        try proxy.respond(ok)
        #expect(try proxy.received() == ok)

        try proxy.send("POST /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 1\r\n\r\nx")
        try proxy.upstream().close().wait()
        #expect(try proxy.received().hasPrefix("HTTP/1.1 502 Bad Gateway\r\n"))
        #expect(proxy.dialed.count == 2)
    }

    @Test("a fresh connection that dies is not retried")
    func noRetry() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.upstream().close().wait()
        #expect(try proxy.received().hasSuffix("\r\n\r\nBad Gateway\n"))
        #expect(proxy.dialed.count == 1)
        #expect(proxy.client.isActive)
    }

    @Test("a connection that closes in the pool is not used")
    func deadInPool() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond(ok)
        try proxy.upstream().close().wait()
        try proxy.send(get)
        #expect(proxy.dialed.count == 2)
    }

    @Test("bytes behind a response are nobody's answer: the connection is not used again")
    func surplus() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try? proxy.respond(ok + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        #expect(try proxy.received() == ok)
        #expect(!(try proxy.upstream().isActive))
        try proxy.send(get)
        #expect(proxy.dialed.count == 2)
        #expect(try proxy.received() == "")
    }

    @Test("pooled connections close after their time, connections of idle clients after theirs")
    func idleTimes() throws {
        var limits = ProxyLimits()
        limits.poolIdle = .seconds(30)
        let proxy = try EmbeddedProxy(limits: limits)
        try proxy.send(get)
        try proxy.respond(ok)
        proxy.advance(by: .seconds(29))
        #expect(try proxy.upstream().isActive)
        proxy.advance(by: .seconds(3))
        #expect(!(try proxy.upstream().isActive))
        #expect(proxy.client.isActive)
        proxy.advance(by: .seconds(45))
        #expect(!proxy.client.isActive)
        #expect(try proxy.received() == ok)
    }

    @Test("a client that goes away takes the upstream's connection with it")
    func clientGone() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin")
        #expect(try proxy.upstream().isActive)
        try proxy.client.close().wait()
        #expect(!(try proxy.upstream().isActive))
    }

    @Test("a response cut short cuts the client off, so that it cannot take half for the whole")
    func cutShort() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n")
        try? proxy.upstream().close().wait()
        #expect(!proxy.client.isActive)
        #expect(!(try proxy.received()).contains("0\r\n\r\n"))
    }

    @Test("an early answer to a long upload is passed on, and the connections are given up")
    func earlyAnswer() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send("POST /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 1000000\r\n\r\nbegin")
        try proxy.respond("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        #expect(try proxy.received().hasSuffix("\r\n\r\nbig"))
        #expect(!(try proxy.upstream().isActive))
        #expect(!proxy.client.isActive)
    }

    @Test("on shutdown a request in hand ends with Connection: close, an idle connection at once")
    func quiescing() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        proxy.client.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        try proxy.respond(ok)
        #expect(try proxy.received() == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        #expect(!proxy.client.isActive)

        let idle = try EmbeddedProxy()
        idle.client.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        #expect(!idle.client.isActive)
    }
}

extension String {
    func components(of text: String) -> Int { self.ranges(of: text).count }
}
