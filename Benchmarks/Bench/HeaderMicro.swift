import BenchShim
import NIOHTTP1
import Proxy

/// What the proxy does to the head of a request and of its response, behind the parser and before the writer.
enum HeaderMicro {
    static func run() {
        let request = HTTPRequestHead(
            version: .http1_1, method: .GET, uri: "/search?q=tunnel",
            headers: [
                "Host": "app.example.com", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language": "en-US,en;q=0.5",
                "Accept-Encoding": "gzip, deflate, br", "Connection": "keep-alive", "Cookie": "session=0123456789abcdef",
                "X-Forwarded-For": "192.0.2.1",
            ])
        let response = HTTPResponseHead(
            version: .http1_1, status: .ok,
            headers: [
                "Server": "nginx", "Date": "Thu, 01 Jan 2026 00:00:00 GMT", "Content-Type": "text/html; charset=utf-8",
                "Content-Length": "100", "Connection": "keep-alive", "ETag": "\"5f0c\"", "Cache-Control": "max-age=60",
            ])
        let added = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Host", "app.example.com"), ("X-Forwarded-Proto", "https")]
        measure("request-head") {
            guard case .success(let checked) = RequestRules.check(request, forwarded: .drop) else { return false }
            return RequestRules.upstreamHead(checked, host: "app.example.com", added: added).headers.count == 9
        }
        measure("response-head") {
            guard case .success(let checked) = ResponseRules.check(response, isHEAD: false) else { return false }
            return checked.fields.count == 5
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
