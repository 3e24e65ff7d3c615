import Inet
import Logging
import NIOCore
import NIOEmbedded
import NIOHPACK
import Proxy
import Testing

/// What answers and log lines know of a request that is refused, and of the visitor that a trusted proxy speaks for.
@Suite struct KnownRequestTests {
    private let lines = LineCollector()

    private func proxy(
        _ mode: ProxyMode = .gateway, speaks: ProxyService.ClientProtocol = .http1, limits: ProxyLimits = ProxyLimits(),
        trusted: String? = nil
    ) throws -> EmbeddedProxy {
        let lines = lines
        return try EmbeddedProxy(
            mode: mode, limits: limits, speaks: speaks, trusted: TrustedProxies([trusted].compactMap { $0.flatMap { IPPrefix($0) } }),
            logger: Logger(label: "test", factory: { _ in lines }))
    }

    /// `key=value` of the last line of that kind.
    private func said(_ message: String, _ keys: String...) -> [String] {
        let line = lines.all.last { $0.contains(" \(message) [") } ?? ""
        let pairs = line.split(separator: "[").last?.dropLast().split(separator: " ") ?? []
        return keys.map { key in pairs.first { $0.hasPrefix("\(key)=") }.map { String($0.dropFirst(key.count + 1)) } ?? "none" }
    }

    private static let host = "Host: app.example.com\r\n"

    @Test(
        "a refused request is known as far as it was read",
        arguments: [
            ("TRACE /a?secret HTTP/1.1\r\n\(host)", 405, ["TRACE", "app.example.com", "/a"]),
            ("CONNECT user:secret@b.example.com:443 HTTP/1.1\r\n\(host)", 405, ["CONNECT", "b.example.com:443", ""]),
            ("POST /a HTTP/1.1\r\n\(host)Transfer-Encoding: gzip, chunked\r\n", 501, ["POST", "app.example.com", "/a"]),
            ("GET /a HTTP/1.1\r\n\(host)\(host)", 400, ["GET", "", "/a"]),
            ("GET http://u:secret@b.example.com/a HTTP/1.1\r\n\(host)\(host)", 400, ["GET", "b.example.com", "/a"]),
            ("GET http://u:secret@b.example.com/a#b HTTP/1.1\r\n\(host)", 400, ["GET", "app.example.com", ""]),
            ("GET /a#secret HTTP/1.1\r\n\(host)", 400, ["GET", "app.example.com", "/a"]),
            ("GET /a HTTP/1.1\r\n", 400, ["GET", "", "/a"]),
            ("GET /a HTTP/1.1\r\n\(host)Accept: application/json\r\nBad Name: 1\r\n", 400, ["GET", "app.example.com", "/a"]),
            ("GET /a HTTP/1.1\r\n\(host)Expect: x\r\n", 417, ["GET", "app.example.com", "/a"]),
        ])
    func refused(_ head: String, _ status: Int, _ known: [String]) throws {
        let proxy = try proxy()
        let field = "Accept: application/json\r\n"
        try proxy.send((head.contains(field) ? head : head + field) + "\r\n")
        let answer = try proxy.received()
        #expect(answer.hasPrefix("HTTP/1.1 \(status) ") && answer.contains("Content-Type: application/json\r\n"), "\(answer)")
        #expect(said("Incoming request", "method", "host", "path") == known)
        #expect(!lines.all.contains { $0.contains("secret") })
    }

    @Test("of a head that has no end its whole lines are known", arguments: ["X: y\n", "X: y\nHost: b\r\n", "\nHost: b\r\n\r\n", "X: y"])
    func half(_ rest: String) throws {
        let proxy = try proxy()
        try proxy.send("\r\nGET /a HTTP/1.1\r\n\(Self.host)Accept: application/json\r\n\(rest)")
        if rest == "X: y" { proxy.advance(by: .seconds(20)) }
        let answer = try proxy.received()
        #expect(answer.hasPrefix("HTTP/1.1 40") && answer.contains("{\"status\":40"), "\(answer)")
        #expect(said("Incoming request", "method", "host", "path") == ["GET", "app.example.com", "/a"])
    }

    @Test(
        "bytes that are no head at all are refused as before",
        arguments: ["\n", "\r\n\n", "\r\n\r\n\r\n", "G\n", "GET / HTTP/1.1\n", "G", "\r\n"])
    func none(_ bytes: String) throws {
        let proxy = try proxy()
        try proxy.send(bytes)
        proxy.advance(by: .seconds(20))
        #expect(try proxy.received().hasPrefix("HTTP/1.1 40"))
        #expect(!lines.all.contains { $0.contains("Incoming request") })
    }

    @Test("what is refused before its request line is known has no line of its own")
    func unknown() throws {
        let proxy = try proxy()
        try proxy.send("GET  / HTTP/1.1\r\nAccept: application/json\r\n\r\n")
        #expect(try proxy.received().hasPrefix("HTTP/1.1 400 "))
        #expect(!lines.all.contains { $0.contains("Incoming request") })
    }

    @Test("an answer to HEAD has no body if it is a refusal, either")
    func head() throws {
        let proxy = try proxy()
        try proxy.send("HEAD / HTTP/1.1\r\n\(Self.host)\(Self.host)\r\n")
        #expect(try proxy.received().hasSuffix("\r\n\r\n"))
    }

    @Test(
        "over HTTP/2 a refused request is known, too",
        arguments: [("TRACE", "a", 1, "405"), ("GET", "expect", 1, "417"), ("GET", "a", 200, "431")])
    func refusedHTTP2(_ method: String, _ field: String, _ count: Int, _ status: String) throws {
        let client = try HTTP2Client(proxy(speaks: .http2))
        var headers: HPACKHeaders = [":method": method, ":scheme": "https", ":authority": "app.example.com", ":path": "/a?secret"]
        for _ in 0..<count { headers.add(name: field, value: "x") }
        headers.add(name: "accept", value: "text/html;q=0.1, application/json")
        try client.send(headers, endStream: true)
        let seen = try client.received()
        #expect(seen.first == status && seen.contains { $0.hasPrefix("{\"status\":\(status),") }, "\(seen)")
        #expect(said("Incoming request", "method", "host", "path") == [method, "app.example.com", "/a"])
    }

    @Test(
        "who is named by a trusted proxy is the client of every answer, served or not",
        arguments: ["app.example.com", "off.example.com", "nobody.test", "a..b"],
        [
            ("203.0.113.7", "203.0.113.7"), ("6.6.6.6, 203.0.113.7:4711, 198.51.100.20", "203.0.113.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("\"[2001:db8::1]:4711\"", "2001:db8::1"), ("\"203.0.113.7:1\"", "203.0.113.7"), ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"), ("[203.0.113.7]:1", "198.51.100.9"), ("203.0.113.7:", "198.51.100.9"),
            ("203.0.113.7:65536", "198.51.100.9"), ("203.0.113.7:+1", "198.51.100.9"), ("[2001:db8::1", "198.51.100.9"),
            ("[]:1", "198.51.100.9"), ("\"", "198.51.100.9"),
            ("_hidden", "198.51.100.9"),
        ])
    func client(_ host: String, _ told: (field: String, client: String)) throws {
        let proxy = try proxy(trusted: "198.51.100.0/24")
        try proxy.send("GET /a HTTP/1.1\r\nHost: \(host)\r\nX-Forwarded-For: \(told.field)\r\n\r\n")
        #expect(said("Incoming request", "client") == [told.client])
        guard host == "app.example.com" else { return }
        #expect(try proxy.forwarded().contains("X-Real-IP: \(told.client)\r\n"))
    }

    @Test("what others say of the client is not believed")
    func untrusted() throws {
        let proxy = try proxy(trusted: "10.0.0.0/8")
        try proxy.send("TRACE /a HTTP/1.1\r\n\(Self.host)X-Forwarded-For: 203.0.113.7\r\nX-Request-Id: mine\r\n\r\n")
        #expect(said("Incoming request", "client") == ["198.51.100.9"])
        #expect(try !proxy.received().contains("mine"))
    }

    @Test("the requests in hand of each visitor behind a trusted proxy are counted, and not those of the proxy itself")
    func requestsInHand() throws {
        var limits = ProxyLimits()
        limits.requestsInFlightPerClient = 1
        let proxy = try proxy(limits: limits, trusted: "198.51.100.0/24")
        func ask(_ visitor: String?) throws -> String {
            let client = EmbeddedChannel(loop: proxy.loop)
            client.remoteAddress = try SocketAddress(ipAddress: "198.51.100.9", port: 51_235)
            try proxy.service.configure(client, scheme: .https)
            client.connect(to: try SocketAddress(ipAddress: "192.0.2.1", port: 443), promise: nil)
            let field = visitor.map { "X-Forwarded-For: \($0)\r\n" } ?? ""
            _ = try client.writeInbound(ByteBuffer(string: "GET /a HTTP/1.1\r\n\(Self.host)\(field)\r\n"))
            return try EmbeddedProxy.drain(client)
        }
        #expect(try ask("203.0.113.7").isEmpty)
        #expect(try ask("203.0.113.7:4711").hasPrefix("HTTP/1.1 429 "))
        #expect(said("Incoming request", "client") == ["203.0.113.7"])
        #expect(try ask("203.0.113.8").isEmpty)
        for _ in 0..<2 { #expect(try ask(nil).isEmpty) }
    }

    @Test("an error page, the log and the upstream have one name of a request: what a trusted proxy gave it, if it did")
    func requestIDs() throws {
        let proxy = try proxy(trusted: "198.51.100.0/24")
        proxy.answerConnects(.fail(.refused))
        try proxy.send("GET /a HTTP/1.1\r\n\(Self.host)X-Request-Id: given\r\n\r\n")
        #expect(try proxy.received().contains("X-Request-Id: given\r\n"))
        #expect(said("Proxy error", "requestID") == ["given"] && said("Incoming request", "requestID") == ["given"])
        try proxy.send("GET /a HTTP/1.1\r\n\(Self.host)X-Request-Id: other\r\n\r\n")
        #expect(try proxy.forwarded().contains("X-Request-Id: other\r\n"))
        try proxy.respond("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(said("Proxying request", "requestID") == ["other"])
        _ = try proxy.received()
        try proxy.send("TRACE /a HTTP/1.1\r\n\(Self.host)X-Request-Id: third\r\n\r\n")
        #expect(try proxy.received().contains("X-Request-Id: third\r\n"))
    }

    @Test("an agent's error page has the name that its gateway gave to the request, if that is not too long")
    func agentsRequestID() throws {
        let proxy = try proxy(.agent)
        proxy.answerConnects(.fail(.refused), .fail(.refused))
        try proxy.send("GET /a HTTP/1.1\r\n\(Self.host)X-Request-Id: 00000000000a1b2c\r\n\r\n")
        #expect(try proxy.received().contains("X-Request-Id: 00000000000a1b2c\r\n"))
        #expect(said("Proxy error", "requestID") == ["00000000000a1b2c"])
        let long = String(repeating: "x", count: 129)
        try proxy.send("GET /a HTTP/1.1\r\n\(Self.host)X-Request-Id: \(long)\r\n\r\n")
        #expect(try !proxy.received().contains(long))
    }
}
