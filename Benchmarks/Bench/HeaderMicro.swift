import BenchShim
import NIOCore
import Proxy

/// What the proxy does to the head of a request and of its response: from the bytes that came to the bytes that go on.
enum HeaderMicro {
    static func run() {
        let request = ByteBuffer(
            string: "GET /search?q=tunnel HTTP/1.1\r\nHost: app.example.com\r\n"
                + "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
                + "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n"
                + "Accept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef\r\n"
                + "X-Forwarded-For: 192.0.2.1\r\n\r\n")
        let response = ByteBuffer(
            string: "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\n"
                + "Content-Length: 100\r\nConnection: keep-alive\r\nETag: \"5f0c\"\r\nCache-Control: max-age=60\r\n\r\n")
        let added = ByteBuffer(
            string: "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: app.example.com\r\nX-Forwarded-Proto: https\r\n")
        let limits = ProxyLimits()
        measure("request-head") {
            var scanner = HeadScanner(startLine: true)
            guard case .complete? = try? scanner.scan(request, limits: limits.head),
                let (line, section) = try? HeadParser.request(request, limits: limits.fields),
                case .success(let checked) = RequestRules.check(line, section, forwarded: .drop)
            else { return false }
            var bytes = ByteBufferAllocator().buffer(capacity: 1024)
            RequestWriter.write(OutgoingRequest(request: checked, host: "app.example.com", added: added), into: &bytes)
            return bytes.readableBytes > 400
        }
        measure("response-head") {
            var scanner = HeadScanner(startLine: true)
            guard case .complete? = try? scanner.scan(response, limits: limits.head),
                let (line, section) = try? HeadParser.response(response, limits: limits.fields),
                case .success(let checked) = ResponseRules.check(
                    code: line.code, reason: line.reason, isHTTP10: false, section, isHEAD: false, rawChunks: true)
            else { return false }
            var writer = ResponseWriter(allocator: ByteBufferAllocator())
            writer.writeHead(
                code: line.code, reason: line.reason, section: checked.section, length: 100, connection: nil, framing: .plain)
            return writer.take()?.readableBytes ?? 0 > 150
        }
    }

    private static func measure(_ name: String, _ body: () -> Bool) {
        let count = 20_000
        var (best, isGood) = (Cost(), true)
        for _ in 0..<Micro.rounds {
            var cost = Cost()
            cost.measure {
                for _ in 0..<count { isGood = body() && isGood }
                return count
            }
            best = best.better(cost)
        }
        guard isGood else { return print("\(name): the head came out otherwise") }
        best.report(name, "a head")
    }
}
