import Crypto
import FoundationEssentials
import NIOCore
import NIOHPACK
import Proxy
import Testing

/// WebSockets of HTTP/2 clients, RFC 8441, at upstreams of HTTP/1.1.
@Suite struct ExtendedConnectTests {
    private func client() throws -> HTTP2Client { try HTTP2Client(EmbeddedProxy(speaks: .http2)) }

    /// The value of the key that went to the upstream; nil unless there is one.
    private func key(in forwarded: String) throws -> String? {
        let fields = forwarded.split(separator: "\r\n").filter { $0.lowercased().hasPrefix("sec-websocket-key: ") }
        return fields.count == 1 ? String(fields[0].dropFirst(19)) : nil
    }

    /// RFC 6455 §4.2.2.
    private func accept(_ key: String) -> String {
        Data(Insecure.SHA1.hash(data: Data((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8))).base64EncodedString()
    }

    private func switching(_ accept: String?) -> String {
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + (accept.map { "Sec-WebSocket-Accept: \($0)\r\n" } ?? "") + "\r\n"
    }

    @Test("a 101 with the right Sec-WebSocket-Accept opens the stream")
    func opens() throws {
        let client = try client()
        try client.openWebSocket()
        let forwarded = try client.proxy.forwarded()
        #expect(forwarded.hasPrefix("GET /chat HTTP/1.1\r\n"))
        let key = try #require(try key(in: forwarded))
        try client.proxy.respond(switching(accept(key)) + "hello")
        #expect(try client.received() == ["200", "hello"])
    }

    @Test("a 101 whose Sec-WebSocket-Accept is wrong or absent is 502", arguments: ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "", nil] as [String?])
    func wrongAccept(_ accept: String?) throws {
        let client = try client()
        try client.openWebSocket()
        try? client.proxy.respond(switching(accept))
        let seen = try client.received()
        #expect(seen.first == "502" && seen.contains("end"), "\(seen)")
        #expect(!(try client.proxy.upstream().isActive))
    }

    @Test("an ordinary 2xx is 502: the client would take it for an open WebSocket", arguments: [200, 204, 206, 299])
    func ordinarySuccess(_ code: Int) throws {
        let client = try client()
        try client.openWebSocket()
        try? client.proxy.respond("HTTP/1.1 \(code) Fine\r\n\(code == 204 ? "" : "Content-Length: 2\r\n")\r\n\(code == 204 ? "" : "hi")")
        let seen = try client.received()
        #expect(seen.first == "502" && seen.contains("end"), "\(seen)")
        #expect(!(try client.proxy.upstream().isActive))
    }

    @Test("any other answer passes as it is", arguments: [302, 401, 404, 503])
    func refusals(_ code: Int) throws {
        let client = try client()
        try client.openWebSocket()
        try client.proxy.respond("HTTP/1.1 \(code) No\r\nContent-Length: 2\r\n\r\nno")
        #expect(try client.received().prefix(2) == ["\(code)", "no"])
    }

    @Test("the client's own key and accept do not go beside ours")
    func ownKey() throws {
        let client = try client()
        try client.openWebSocket(["sec-websocket-key": "bWluZQ==", "sec-websocket-accept": "x", "sec-websocket-protocol": "chat"])
        let forwarded = try client.proxy.forwarded()
        let key = try key(in: forwarded)
        #expect(key?.utf8.count == 24 && key != "bWluZQ==", "\(forwarded)")
        #expect(!forwarded.lowercased().contains("sec-websocket-accept"))
        #expect(forwarded.contains("sec-websocket-protocol: chat\r\n"))
    }
}
