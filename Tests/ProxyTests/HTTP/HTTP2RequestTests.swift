import NIOCore
import NIOHPACK
import Proxy
import Testing

@Suite struct HTTP2RequestTests {
    private func answer(path: String, method: String = "GET") throws -> (seen: [String], forwarded: String?) {
        let client = try HTTP2Client(EmbeddedProxy(speaks: .http2))
        try client.send([":method": method, ":scheme": "https", ":authority": "app.example.com", ":path": path], endStream: true)
        return (try client.received(), try client.proxy.upstreams.last.map { try client.proxy.forwarded(on: $0) })
    }

    @Test(
        "a :path that is no path is refused",
        arguments: ["https://app.example.com/a", "http://app.example.com", "https://other.example.com/?q", "a", "*", "?q", "**"])
    func noPath(_ path: String) throws {
        let (seen, forwarded) = try answer(path: path)
        #expect(seen.first == "400", "\(seen)")
        #expect(forwarded == nil)
        guard path != "*" else { return }
        #expect(try answer(path: path, method: "OPTIONS").seen.first == "400")
    }

    @Test("a path, and the asterisk of OPTIONS, pass as they are")
    func paths() throws {
        #expect(try answer(path: "/a?b//https://c").forwarded?.hasPrefix("GET /a?b//https://c HTTP/1.1\r\n") == true)
        #expect(try answer(path: "*", method: "OPTIONS").forwarded?.hasPrefix("OPTIONS * HTTP/1.1\r\n") == true)
    }

    @Test("crumbs of a cookie become one field, in their order")
    func crumbs() throws {
        var headers: HPACKHeaders = [":method": "GET"]
        for number in 0..<4_000 { headers.add(name: "cookie", value: "c\(number)") }
        headers.add(name: "x-a", value: "b")
        let section = try HTTP2Fields.section(headers, limits: ProxyLimits()).get().section
        #expect(section.fields.map { $0.name } == ["x-a", "cookie"])
        #expect(section.fields.last?.value == (0..<4_000).map { "c\($0)" }.joined(separator: "; "))
    }
}
