import NIOCore
import Proxy
import Testing

/// Raw request bytes in, exact expectations out.
@Suite struct ParsingTableTests {
    struct Probe: Sendable, CustomTestStringConvertible {
        var name: String
        var request: String
        /// A status line's start, or `->` for forwarded.
        var outcome: String
        /// What must be in the forwarded bytes, or in the answer.
        var contains: String = ""
        var testDescription: String { name }
    }

    static let get = "GET / HTTP/1.1\r\nHost: app.example.com\r\n"
    static let post = "POST / HTTP/1.1\r\nHost: app.example.com\r\n"

    static let probes: [Probe] = [
        Probe(name: "plain", request: "\(get)\r\n", outcome: "->", contains: "GET / HTTP/1.1\r\nHost: app.example.com\r\n"),
        Probe(
            name: "upper-case Host with port", request: "GET / HTTP/1.1\r\nHost: APP.example.com:8443\r\n\r\n", outcome: "->",
            contains: "Host: app.example.com\r\n"),
        Probe(
            name: "trailing dot", request: "GET / HTTP/1.1\r\nHost: app.example.com.\r\n\r\n", outcome: "->",
            contains: "Host: app.example.com\r\n"),
        Probe(
            name: "unknown host", request: "GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n", outcome: "404",
            contains: "\r\n\r\nTunnel not found\n"),
        Probe(
            name: "disabled", request: "GET / HTTP/1.1\r\nHost: off.example.com\r\n\r\n", outcome: "503",
            contains: "\r\n\r\nTunnel disabled\n"),
        Probe(
            name: "wildcard", request: "GET / HTTP/1.1\r\nHost: a.wild.example.com\r\n\r\n", outcome: "->",
            contains: "Host: a.wild.example.com\r\n"),
        Probe(name: "no Host", request: "GET / HTTP/1.1\r\n\r\n", outcome: "400"),
        Probe(name: "two Hosts", request: "\(get)Host: app.example.com\r\n\r\n", outcome: "400"),
        Probe(name: "Host with user information", request: "GET / HTTP/1.1\r\nHost: a@app.example.com\r\n\r\n", outcome: "400"),
        Probe(
            name: "absolute form wins over Host",
            request: "GET http://app.example.com:80/a%2Fb?x;y HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
            outcome: "->", contains: "GET /a%2Fb?x;y HTTP/1.1\r\nHost: app.example.com\r\n"),
        Probe(
            name: "absolute form without path", request: "GET http://app.example.com?q HTTP/1.1\r\nHost: x\r\n\r\n", outcome: "->",
            contains: "GET /?q HTTP/1.1"),
        Probe(
            name: "path is byte-exact", request: "GET /a%2Fb?x;y HTTP/1.1\r\nHost: app.example.com\r\n\r\n", outcome: "->",
            contains: "GET /a%2Fb?x;y HTTP/1.1"),
        Probe(
            name: "path is not normalised", request: "GET /a/../b//c HTTP/1.1\r\nHost: app.example.com\r\n\r\n", outcome: "->",
            contains: "GET /a/../b//c HTTP/1.1"),
        Probe(
            name: "asterisk form", request: "OPTIONS * HTTP/1.1\r\nHost: app.example.com\r\n\r\n", outcome: "->",
            contains: "OPTIONS * HTTP/1.1"),
        Probe(name: "asterisk with GET", request: "GET * HTTP/1.1\r\nHost: app.example.com\r\n\r\n", outcome: "400"),
        Probe(
            name: "Content-Length and Transfer-Encoding",
            request: "\(post)Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", outcome: "400",
            contains: "Connection: close"),
        Probe(
            name: "Transfer-Encoding and Content-Length",
            request: "\(post)Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", outcome: "400",
            contains: "Connection: close"),
        Probe(name: "two equal Content-Length", request: "\(post)Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", outcome: "400"),
        Probe(name: "two Content-Length in one field", request: "\(post)Content-Length: 1, 1\r\n\r\nx", outcome: "400"),
        Probe(name: "signed Content-Length", request: "\(post)Content-Length: +1\r\n\r\nx", outcome: "400"),
        Probe(name: "huge Content-Length", request: "\(post)Content-Length: 99999999999999999999\r\n\r\nx", outcome: "400"),
        Probe(
            name: "Transfer-Encoding on HTTP/1.0",
            request: "POST / HTTP/1.0\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", outcome: "400"),
        Probe(name: "gzip, chunked", request: "\(post)Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", outcome: "501"),
        Probe(name: "obs-fold", request: "\(get)X-A: one\r\n two\r\n\r\n", outcome: "400"),
        Probe(name: "NUL in a value", request: "\(get)X-A: a\0b\r\n\r\n", outcome: "400"),
        Probe(name: "bare CR in a value", request: "\(get)X-A: a\rb\r\n\r\n", outcome: "400"),
        Probe(name: "space before the colon", request: "\(get)X-A : b\r\n\r\n", outcome: "400"),
        Probe(name: "0x chunk size", request: "\(post)Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", outcome: "400"),
        Probe(name: "TRACE", request: "TRACE / HTTP/1.1\r\nHost: app.example.com\r\n\r\n", outcome: "405", contains: "Allow: GET, HEAD"),
        Probe(
            name: "CONNECT", request: "CONNECT app.example.com:443 HTTP/1.1\r\nHost: app.example.com\r\n\r\n", outcome: "405",
            contains: "Connection: close"),
        Probe(name: "large field", request: "\(get)X-A: \(String(repeating: "a", count: 65_000))\r\n\r\n", outcome: "431"),
        Probe(name: "many fields", request: get + String(repeating: "X-A: b\r\n", count: 2000) + "\r\n", outcome: "431"),
        Probe(name: "HTTP/2.0 in the request line", request: "GET / HTTP/2.0\r\nHost: app.example.com\r\n\r\n", outcome: "505"),
        Probe(name: "HTTP/2 preface", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", outcome: "505"),
        Probe(
            name: "large target", request: "GET /\(String(repeating: "a", count: 65_000)) HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
            outcome: "414"),
        Probe(name: "bare LF behind the request line", request: "GET / HTTP/1.1\nHost: app.example.com\r\n\r\n", outcome: "400"),
        Probe(name: "bare LF behind a field", request: "GET / HTTP/1.1\r\nHost: app.example.com\n\r\n", outcome: "400"),
        Probe(name: "LF in a chunk extension", request: "\(post)Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", outcome: "400"),
        Probe(
            name: "bare LF behind a chunk size", request: "\(post)Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", outcome: "400"),
        Probe(name: "bare LF behind a chunk", request: "\(post)Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", outcome: "400"),
        Probe(name: "chunk size of 17 digits", request: "\(post)Transfer-Encoding: chunked\r\n\r\n1fffffffffffffff0\r\n", outcome: "400"),
        Probe(
            name: "Transfer-Encoding with an underscore is no framing", request: "\(get)Transfer_Encoding: chunked\r\n\r\n", outcome: "->",
            contains: "GET / HTTP/1.1\r\nHost: app.example.com\r\nX-Request-Id"),
        Probe(name: "unknown expectation", request: "\(post)Expect: more\r\nContent-Length: 1\r\n\r\nx", outcome: "417"),
        Probe(name: "garbage", request: "\u{16}\u{3}\u{1}garbage\r\n\r\n", outcome: "400"),
        Probe(name: "HTTP/1.0 without Host", request: "GET / HTTP/1.0\r\n\r\n", outcome: "404"),
        Probe(name: "fragment in the target", request: "GET /a#b HTTP/1.1\r\nHost: app.example.com\r\n\r\n", outcome: "400"),
    ]

    @Test("a probe gets its answer", arguments: probes)
    func probe(_ probe: Probe) throws {
        let proxy = try EmbeddedProxy()
        try? proxy.send(probe.request)
        let answer = try proxy.received()
        if probe.outcome == "->" {
            #expect(answer == "")
            let forwarded = try proxy.forwarded()
            #expect(probe.contains.isEmpty || forwarded.contains(probe.contains), "\(forwarded)")
        } else {
            #expect(answer.hasPrefix("HTTP/1.1 \(probe.outcome) "), "\(answer)")
            #expect(probe.contains.isEmpty || answer.contains(probe.contains), "\(answer)")
            if let upstream = proxy.upstreams.last {
                // The head was forwarded before the body turned out bad.
                #expect(!upstream.isActive)
            }
        }
    }

    @Test("the same bytes one at a time get the same answer", arguments: probes)
    func byteByByte(_ probe: Probe) throws {
        guard probe.request.utf8.count < 1000 else { return }
        let proxy = try EmbeddedProxy()
        for byte in probe.request.utf8 where proxy.client.isActive { _ = try? proxy.client.writeInbound(ByteBuffer(bytes: [byte])) }
        let answer = try proxy.received()
        #expect(probe.outcome == "->" ? answer == "" : answer.hasPrefix("HTTP/1.1 \(probe.outcome) "), "\(answer)")
    }
}
