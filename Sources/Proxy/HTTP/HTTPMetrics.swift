extension MetricsText {
    /// Requests and connections. Labels are the configured domains and our own words.
    package mutating func add(_ totals: HTTPTotals) {
        addRequests(totals.routes)
        let prefix = "kakuremichi_http_"
        family(prefix + "connections", .gauge, "Open connections of clients, by protocol.")
        for kind in HTTPCounters.ConnectionKind.allCases {
            let (opened, closed) = (totals.connectionsOpened[kind.rawValue], totals.connectionsClosed[kind.rawValue])
            sample(prefix + "connections", [("protocol", "\(kind)")], Self.open(opened, closed))
        }
        counters(prefix + "connections_total", "Connections of clients, by protocol.", "protocol", totals.connectionsOpened) {
            HTTPCounters.ConnectionKind(rawValue: $0).map { "\($0)" }
        }
        single(prefix + "streams", .gauge, "Open HTTP/2 streams.", Self.open(totals.streamsOpened, totals.streamsClosed))
        counters(prefix + "refusals_total", "Requests and connections that were not served, by reason.", "reason", totals.refusals) {
            HTTPCounters.Refusal(rawValue: $0).map { "\($0)" }
        }
        single("kakuremichi_tls_handshakes_total", .counter, "TLS handshakes of clients that came to their end.", totals.tlsEstablished)
        counters("kakuremichi_tls_failures_total", "TLS handshakes of clients that failed.", "reason", totals.tlsFaults) {
            HTTPCounters.TLSFault(rawValue: $0).map { "\($0)" }
        }
        addUpstream(totals)
    }

    /// Connections to agents, or to targets.
    mutating func addUpstream(_ totals: HTTPTotals) {
        let upstream = "kakuremichi_upstream_"
        single(
            upstream + "connections", .gauge, "Open connections to agents, or of an agent to targets.",
            Self.open(totals.upstreamOpened, totals.upstreamClosed))
        single(
            upstream + "idle_connections", .gauge, "Of these, connections that wait for a request.",
            totals.upstreamIdle)
        single(upstream + "connections_total", .counter, "Connections to agents, or of an agent to targets.", totals.upstreamOpened)
        counters(upstream + "failures_total", "Requests that an agent or target has failed, by reason.", "reason", totals.upstreamFaults) {
            HTTPCounters.UpstreamFault(rawValue: $0).map { "\($0)" }
        }
        single(upstream + "retries_total", .counter, "Requests that went out once more on another connection.", totals.retries)
    }

    private mutating func addRequests(_ routes: [HTTPTotals.RouteTotals]) {
        let prefix = "kakuremichi_http_"
        family(prefix + "requests_total", .counter, "Requests by route and class of status.")
        for route in routes {
            for (digit, count) in route.classes.enumerated() where count > 0 {
                sample(
                    prefix + "requests_total", [("route", route.domain), ("code", digit == 0 ? "none" : "\(digit)xx")], count)
            }
        }
        let duration = prefix + "request_duration_seconds"
        family(duration, .histogram, "From the head of a request to the last byte of its response.")
        for route in routes where route.durations.contains(where: { $0 > 0 }) {
            var count: UInt64 = 0
            for (place, durations) in route.durations.enumerated() {
                count &+= durations
                sample(duration + "_bucket", [("route", route.domain), ("le", Self.boundNames[place])], count)
            }
            sample(duration + "_sum", [("route", route.domain)], nanoseconds: route.durationSum)
            sample(duration + "_count", [("route", route.domain)], count)
        }
        family(prefix + "request_bytes_total", .counter, "Bytes of request bodies.")
        for route in routes where route.bytesIn > 0 { sample(prefix + "request_bytes_total", [("route", route.domain)], route.bytesIn) }
        family(prefix + "response_bytes_total", .counter, "Bytes of response bodies.")
        for route in routes where route.bytesOut > 0 { sample(prefix + "response_bytes_total", [("route", route.domain)], route.bytesOut) }
    }

    private mutating func counters(
        _ name: String, _ help: String, _ label: String, _ values: [UInt64], _ names: (Int) -> String?
    ) {
        family(name, .counter, help)
        for (index, value) in values.enumerated() {
            if let text = names(index) { sample(name, [(label, Self.snakeCase(text))], value) }
        }
    }

    /// The two are of one moment for each loop, but a connection may be counted as closed on another loop than as opened.
    private static func open(_ opened: UInt64, _ closed: UInt64) -> UInt64 { opened > closed ? opened - closed : 0 }

    private static let boundNames = HTTPTotals.bounds.map { seconds(UInt64(clamping: $0.nanoseconds)) } + ["+Inf"]

    /// `headerTooLarge` is `header_too_large`, `plainHTTP` is `plain_http`.
    static func snakeCase(_ name: String) -> String {
        var result = ""
        var wasUpper = true
        for character in name {
            if character.isUppercase, !wasUpper { result += "_" }
            wasUpper = character.isUppercase
            result += character.lowercased()
        }
        return result
    }
}
