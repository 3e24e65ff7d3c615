import Logging
import NIOCore
import NIOEmbedded
import Proxy
import Testing

@Suite struct ProxyFailureTests {
    let get = "GET /a?token=secret HTTP/1.1\r\nHost: app.example.com\r\n\r\n"
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

    private func logger(_ lines: LineCollector) -> Logger { Logger(label: "test", factory: { _ in lines }) }

    @Test("nobody reachable is 503 with Retry-After, refused or broken is 502; each is logged")
    func connectFailures() throws {
        let lines = LineCollector()
        let proxy = try EmbeddedProxy(logger: logger(lines))
        proxy.answerConnects(.fail(.unreachable("no session")), .fail(.refused), .fail(.broken("odd\u{1B}")))
        try proxy.send(get)
        let first = try proxy.received()
        #expect(first.hasPrefix("HTTP/1.1 503 Service Unavailable\r\n"))
        #expect(first.contains("\r\nRetry-After: 5\r\n"))
        try proxy.send(get)
        #expect(try proxy.received().hasPrefix("HTTP/1.1 502 Bad Gateway\r\n"))
        try proxy.send(get)
        #expect(try proxy.received().hasSuffix("\r\n\r\nBad Gateway\n"))
        #expect(proxy.client.isActive)
        #expect(
            lines.all.filter { $0.hasPrefix("error") } == [
                "error Proxy error [agentIP=10.1.0.2 domain=app.example.com error=no session requestID=0000000000000001]",
                "error Proxy error [agentIP=10.1.0.2 domain=app.example.com error=connection refused requestID=0000000000000002]",
                "error Proxy error [agentIP=10.1.0.2 domain=app.example.com error=odd\\u{1B} requestID=0000000000000003]",
            ])
    }

    @Test("an upload is held back while the connect lasts, and goes out whole when it succeeds")
    func heldUpload() throws {
        let proxy = try EmbeddedProxy()
        proxy.answerConnects(.wait)
        try proxy.send("POST /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 6\r\n\r\nabc")
        let reads = proxy.clientReads.count
        proxy.client.read()
        #expect(proxy.clientReads.count == reads, "no more is read")
        try proxy.completeConnect()
        #expect(proxy.clientReads.count == reads + 1)
        #expect(try proxy.forwarded().hasSuffix("\r\n\r\nabc"))
        try proxy.send("def")
        #expect(try proxy.forwarded() == "def")
    }

    @Test("a connect without an answer is 503 after 3 s; a connection that comes later serves the next request")
    func connectTimeout() throws {
        let proxy = try EmbeddedProxy()
        proxy.answerConnects(.wait)
        try proxy.send(get)
        proxy.advance(by: .milliseconds(2_900))
        #expect(try proxy.received() == "")
        proxy.advance(by: .milliseconds(1_200))
        #expect(try proxy.received().hasPrefix("HTTP/1.1 503 "))
        try proxy.completeConnect()
        #expect(try proxy.forwarded() == "")
        try proxy.send(get)
        #expect(proxy.dialed.count == 1)
        #expect(try proxy.forwarded().hasPrefix("GET "))
    }

    @Test("no response head in time is 504, and the connection is given up")
    func responseTimeout() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        proxy.advance(by: .seconds(59))
        #expect(try proxy.received() == "")
        proxy.advance(by: .seconds(2))
        #expect(try proxy.received().hasPrefix("HTTP/1.1 504 Gateway Timeout\r\n"))
        #expect(!(try proxy.upstream().isActive))
        #expect(proxy.client.isActive)
    }

    @Test("a response that stalls cuts the client off, one that moves lasts for ever")
    func stalledResponse() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try proxy.respond("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in 0..<10 {
            proxy.advance(by: .seconds(50))
            try proxy.respond("x")
        }
        #expect(proxy.client.isActive)
        proxy.advance(by: .seconds(62))
        #expect(!proxy.client.isActive)
        #expect(!(try proxy.upstream().isActive))
    }

    @Test("a head that does not end within 10 s is 408, also the second one of a connection")
    func slowHead() throws {
        let proxy = try EmbeddedProxy()
        for byte in "GET /abc" {
            try proxy.send(String(byte))
            proxy.advance(by: .seconds(1))
        }
        #expect(try proxy.received() == "")
        proxy.advance(by: .seconds(4))
        #expect(try proxy.received().hasPrefix("HTTP/1.1 408 Request Timeout\r\n"))
        #expect(!proxy.client.isActive)

        let second = try EmbeddedProxy()
        try second.send(get)
        try second.respond(ok)
        second.advance(by: .seconds(20))
        #expect(try second.received() == ok)
        try second.send("GET /")
        second.advance(by: .seconds(12))
        #expect(try second.received().hasPrefix("HTTP/1.1 408 "))
    }

    @Test("an upload that stalls is 408")
    func slowUpload() throws {
        var limits = ProxyLimits()
        limits.minimumBodyRate = 0
        let proxy = try EmbeddedProxy(limits: limits)
        try proxy.send("POST /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 10\r\n\r\nabc")
        proxy.advance(by: .seconds(50))
        try proxy.send("d")
        proxy.advance(by: .seconds(50))
        #expect(try proxy.received() == "")
        proxy.advance(by: .seconds(12))
        #expect(try proxy.received().hasPrefix("HTTP/1.1 408 "))
        #expect(!(try proxy.upstream().isActive))
    }

    @Test("an upload that comes, but too slowly, is 408; one that waits for the upstream is not slow")
    func trickle() throws {
        func upload(blocked: Bool) throws -> EmbeddedProxy {
            let proxy = try EmbeddedProxy()
            try proxy.send("POST /a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 1000000\r\n\r\nabc")
            if blocked {
                try proxy.upstream().isWritable = false
                try proxy.upstream().pipeline.fireChannelWritabilityChanged()
            }
            for _ in 0..<10 {
                proxy.advance(by: .seconds(10))
                guard proxy.client.isActive else { break }
                try proxy.send("x")
            }
            return proxy
        }
        #expect(try upload(blocked: false).received().hasPrefix("HTTP/1.1 408 "))
        #expect(try upload(blocked: true).received() == "")
    }

    @Test(
        "a response that two readers could read in two ways is 502, and its connection dies",
        arguments: [
            RawMessage("length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            RawMessage("chunked and length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n"),
            RawMessage("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"),
            RawMessage("list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi"),
            RawMessage("negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi"),
            RawMessage("other coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            RawMessage("unasked 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            RawMessage("obs-fold", "HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\nContent-Length: 0\r\n\r\n"),
            RawMessage("large field", "HTTP/1.1 200 OK\r\nX-A: \(String(repeating: "a", count: 70_000))\r\n\r\n"),
            RawMessage("no HTTP", "SSH-2.0-OpenSSH\r\n\r\n"),
        ])
    func ambiguousResponses(_ response: RawMessage) throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try? proxy.respond(response.bytes)
        #expect(try proxy.received().hasPrefix("HTTP/1.1 502 Bad Gateway\r\n"))
        #expect(!(try proxy.upstream().isActive))
        #expect(proxy.client.isActive)
    }

    @Test("a bad chunk in a response cuts the client off")
    func badChunk() throws {
        let proxy = try EmbeddedProxy()
        try proxy.send(get)
        try? proxy.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n")
        #expect(!proxy.client.isActive)
        #expect(!(try proxy.upstream().isActive))
    }

    @Test("a Host of another tunnel is served only if the certificate shown covers it")
    func misdirected() throws {
        let proxy = try EmbeddedProxy(coverage: CoveredHosts(hosts: ["app.example.com"]))
        try proxy.send(get)
        try proxy.respond(ok)
        #expect(try proxy.received() == ok)
        try proxy.send("GET / HTTP/1.1\r\nHost: a.wild.example.com\r\n\r\n")
        #expect(try proxy.received().hasPrefix("HTTP/1.1 421 Misdirected Request\r\n"))
        try proxy.send("GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n")
        #expect(try proxy.received().hasPrefix("HTTP/1.1 404 "))
    }

    @Test("error pages take the form that the client likes, and tell nothing of the inside")
    func errorPages() throws {
        let proxy = try EmbeddedProxy()
        func page(_ accept: String) throws -> String {
            try proxy.send("GET / HTTP/1.1\r\nHost: nobody.test\r\nAccept: \(accept)\r\n\r\n")
            return try proxy.received()
        }
        let json = try page("application/json, */*")
        #expect(json.contains("Content-Type: application/json\r\n"))
        #expect(json.contains("{\"status\":404,\"error\":\"Tunnel not found\",\"requestID\":\""))
        let html = try page("text/html,application/xhtml+xml")
        #expect(html.contains("Content-Type: text/html; charset=utf-8\r\n"))
        #expect(html.contains("<h1>Tunnel not found</h1>"))
        for text in [json, html, try page("*/*")] {
            #expect(text.contains("X-Content-Type-Options: nosniff\r\n"))
            #expect(text.contains("X-Request-Id: "))
            #expect(!text.contains("10.1."))
        }
        #expect(proxy.client.isActive)
    }

    @Test("logs name the host of a lost request, escaped, and never its query or fields")
    func logs() throws {
        let lines = LineCollector()
        let proxy = try EmbeddedProxy(logger: logger(lines))
        try proxy.send("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\nGET / HTTP/1.1\r\nHost: off.example.com\r\n\r\n")
        try proxy.send("GET /a?token=secret HTTP/1.1\r\nHost: app.example.com\r\nAuthorization: Basic secret\r\nCookie: secret\r\n\r\n")
        try proxy.respond(ok)
        #expect(lines.all.contains("warning Tunnel not found [domain=nobody.test]"))
        #expect(lines.all.contains("warning Tunnel disabled [domain=off.example.com]"))
        #expect(lines.all.contains { $0.hasPrefix("debug Incoming request [") && $0.contains("path=/a ") })
        #expect(
            lines.all.contains {
                $0.hasPrefix("debug Proxying request [agentIP=10.1.0.2 domain=app.example.com") && $0.contains("status=200")
            })
        #expect(!lines.all.contains { $0.contains("secret") })
    }
}
