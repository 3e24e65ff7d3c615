import NIOCore
import Proxy
import Testing

@Suite struct UpstreamConnectionTests {
    private func secondRequest(after response: String, to request: String, later surplus: String = "") throws -> Int {
        let proxy = try EmbeddedProxy()
        try proxy.send("\(request) / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        try proxy.respond(response)
        if !surplus.isEmpty { try? proxy.respond(surplus) }
        try proxy.send("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        return proxy.dialed.count
    }

    @Test(
        "half a head behind a response must not become the next client's",
        arguments: [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n"), ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        ])
    func halfHead(_ method: String, _ response: String) throws {
        #expect(try secondRequest(after: response, to: method) == 1)
        #expect(try secondRequest(after: response + "HTTP/1.1 200", to: method) == 2)
        #expect(try secondRequest(after: response, to: method, later: "HTTP/1.1 200") == 2)
    }

    @Test(
        "a 204 that speaks of a body costs its connection: the body may yet come",
        arguments: [("Content-Length: 2", 2), ("Transfer-Encoding: chunked", 2), ("Content-Length: 0", 1)])
    func bodyOf204(_ field: String, _ connections: Int) throws {
        #expect(try secondRequest(after: "HTTP/1.1 204 No Content\r\n\(field)\r\n\r\n", to: "GET") == connections)
        #expect(try secondRequest(after: "HTTP/1.1 204 No Content\r\n\(field)\r\n\r\n", to: "HEAD") == connections)
    }

    @Test("a connection that has ended by the time it is there fails the request at once")
    func endedAtOnce() throws {
        let proxy = try EmbeddedProxy()
        proxy.answerConnects(.wait)
        try proxy.send("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        try proxy.completeConnect { $0.close(promise: nil) }
        #expect(try proxy.received().hasPrefix("HTTP/1.1 502 "))
    }

    @Test("half a head that comes while the connection waits ends it, also behind a body of known length")
    func whileIdle() throws {
        #expect(try secondRequest(after: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", to: "GET") == 1)
        #expect(try secondRequest(after: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", to: "GET", later: "HTTP/1.1") == 2)
    }
}
