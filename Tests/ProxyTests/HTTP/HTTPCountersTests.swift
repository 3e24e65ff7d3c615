import NIOCore
import Proxy
import Testing

@Suite struct HTTPCountersTests {
    private func route(_ domain: String) throws -> Route { Route(domain: domain, target: try #require(UpstreamTarget("10.1.0.2:80"))) }

    private func text(_ totals: HTTPTotals) -> String {
        var text = MetricsText()
        text.add(totals)
        return text.text
    }

    @Test("requests go by route and class of status, with a cumulative histogram")
    func requests() throws {
        let counters = HTTPCounters()
        let app = try route("app.example.com")
        for milliseconds in [1, 1, 3, 70_000] {
            counters.requestEnded(route: app, status: 200, bytesIn: 1, bytesOut: 10, duration: .milliseconds(Int64(milliseconds)))
        }
        counters.requestEnded(route: try route("api.example.com"), status: 101, bytesIn: 0, bytesOut: 0, duration: .zero)
        counters.requestEnded(route: nil, status: 404, bytesIn: 0, bytesOut: 0, duration: .zero)
        counters.requestEnded(route: app, status: 0, bytesIn: 0, bytesOut: 0, duration: .microseconds(1500))
        let text = text(counters.totals)
        for line in [
            #"kakuremichi_http_requests_total{route="app.example.com",code="2xx"} 4"#,
            #"kakuremichi_http_requests_total{route="app.example.com",code="none"} 1"#,
            #"kakuremichi_http_requests_total{route="api.example.com",code="1xx"} 1"#,
            #"kakuremichi_http_requests_total{route="-",code="4xx"} 1"#,
            "# TYPE kakuremichi_http_request_duration_seconds histogram",
            #"kakuremichi_http_request_duration_seconds_bucket{route="app.example.com",le="0.001"} 2"#,
            #"kakuremichi_http_request_duration_seconds_bucket{route="app.example.com",le="0.002"} 3"#,
            #"kakuremichi_http_request_duration_seconds_bucket{route="app.example.com",le="60"} 4"#,
            #"kakuremichi_http_request_duration_seconds_bucket{route="app.example.com",le="+Inf"} 5"#,
            #"kakuremichi_http_request_duration_seconds_sum{route="app.example.com"} 70.0065"#,
            #"kakuremichi_http_request_duration_seconds_count{route="app.example.com"} 5"#,
            #"kakuremichi_http_request_bytes_total{route="app.example.com"} 4"#,
            #"kakuremichi_http_response_bytes_total{route="app.example.com"} 40"#,
        ] { #expect(text.contains("\n\(line)\n"), "\(line)") }
    }

    @Test("a route that is made anew keeps its counts")
    func newRoute() throws {
        let counters = HTTPCounters()
        for _ in 0..<3 {
            counters.requestEnded(route: try route("a.example.com"), status: 200, bytesIn: 0, bytesOut: 0, duration: .zero)
            counters.requestEnded(route: try route("b.example.com"), status: 500, bytesIn: 0, bytesOut: 0, duration: .zero)
        }
        #expect(counters.totals.routes.map(\.domain) == ["-", "a.example.com", "b.example.com"])
        #expect(counters.totals.routes.map { $0.classes[2] + $0.classes[5] } == [0, 3, 3])
    }

    @Test("the loops' counts are added, whatever the order of their routes")
    func sum() throws {
        let (one, other) = (HTTPCounters(), HTTPCounters())
        for (counters, domains) in [(one, ["a", "b"]), (other, ["b", "c"])] {
            for domain in domains {
                counters.requestEnded(route: try route("\(domain).example.com"), status: 200, bytesIn: 0, bytesOut: 1, duration: .zero)
            }
        }
        one.connectionOpened(.http2)
        other.connectionOpened(.http2)
        other.connectionClosed(.http2)
        one.streamOpened()
        other.refused(.headerTooLarge)
        one.upstreamOpened()
        one.upstreamFailed(.noResponse)
        one.requestRetried()
        other.tlsEstablished()
        other.tlsFailed(.timeout)
        var totals = HTTPTotals()
        totals.add(one.totals)
        totals.add(other.totals)
        totals.upstreamIdle = 3
        let text = text(totals)
        for line in [
            #"kakuremichi_http_requests_total{route="a.example.com",code="2xx"} 1"#,
            #"kakuremichi_http_requests_total{route="b.example.com",code="2xx"} 2"#,
            #"kakuremichi_http_connections{protocol="http2"} 1"#, #"kakuremichi_http_connections_total{protocol="http2"} 2"#,
            "kakuremichi_http_streams 1", #"kakuremichi_http_refusals_total{reason="header_too_large"} 1"#,
            "kakuremichi_upstream_connections 1", "kakuremichi_upstream_idle_connections 3", "kakuremichi_upstream_retries_total 1",
            #"kakuremichi_upstream_failures_total{reason="no_response"} 1"#, "kakuremichi_tls_handshakes_total 1",
            #"kakuremichi_tls_failures_total{reason="timeout"} 1"#,
        ] { #expect(text.contains("\n\(line)\n"), "\(line)") }
    }

    @Test("domains beyond the bound are counted with those without a route")
    func bound() throws {
        let counters = HTTPCounters()
        for number in 0..<(HTTPCounters.maximumRoutes + 5) {
            counters.requestEnded(route: try route("\(number).example.com"), status: 200, bytesIn: 0, bytesOut: 0, duration: .zero)
        }
        #expect(counters.totals.routes.count == HTTPCounters.maximumRoutes + 1)
        #expect(counters.totals.routes[0].classes[2] == 5)
    }
}
