import FoundationEssentials

/// What a gateway has to tell beside its tunnel.
package struct GatewayMetrics: Sendable {
    /// One, or a second one that redirects.
    package var services: [ProxyService]
    package var limiter: ConnectionLimiter
    package var selector: CertificateSelector
    package var accessLog: AccessLogFile?
    package var certificates: GatewayCertificates?

    package init(
        services: [ProxyService], limiter: ConnectionLimiter, selector: CertificateSelector, accessLog: AccessLogFile? = nil,
        certificates: GatewayCertificates? = nil
    ) {
        self.certificates = certificates
        self.services = services
        self.limiter = limiter
        self.selector = selector
        self.accessLog = accessLog
    }

    package var provider: MetricsProvider {
        { text in
            var totals = HTTPTotals()
            for service in services { totals.add(await service.httpTotals()) }
            text.add(totals)
            addEdge(to: &text)
            if let certificates { await text.add(certificates) }
        }
    }

    private func addEdge(to text: inout MetricsText) {
        text.single("kakuremichi_edge_connections", .gauge, "Open TCP connections of clients.", UInt64(clamping: limiter.open))
        text.single(
            "kakuremichi_edge_refused_connections_total", .counter, "TCP connections closed at once, by the limits of all and of a client.",
            limiter.refused)
        let refusals = selector.refusals
        text.family("kakuremichi_tls_refusals_total", .counter, "TLS connections refused by their ClientHello, by reason.")
        for reason in TLSRefusal.allCases {
            text.sample("kakuremichi_tls_refusals_total", [("reason", MetricsText.snakeCase(reason.rawValue))], refusals[reason] ?? 0)
        }
        text.family(
            "kakuremichi_certificate_expiry_timestamp_seconds", .gauge,
            "When a certificate ends, in seconds since 1970: those of ACME by domain, the configured ones by file, or the root of the internal CA."
        )
        for (source, end) in selector.expiries {
            text.sample(
                "kakuremichi_certificate_expiry_timestamp_seconds", [("source", source)], UInt64(max(0, end.timeIntervalSince1970)))
        }
        guard let counters = accessLog?.counters else { return }
        text.single("kakuremichi_access_log_records_total", .counter, "Lines of the access log.", counters.written)
        text.single(
            "kakuremichi_access_log_dropped_total", .counter, "Records that are missing there: no room, or no disk.", counters.dropped)
        text.single("kakuremichi_access_log_write_errors_total", .counter, "Failed writes of it.", counters.writeErrors)
    }
}
