extension MetricsText {
    /// What ACME does. Labels are domains of routes, and our own words.
    mutating func add(_ certificates: GatewayCertificates) async {
        add(alerts: certificates.alertCounters)
        guard let automatic = certificates.automatic else { return }
        let list = await automatic.list
        let counts = await automatic.counts
        let prefix = "kakuremichi_acme_"
        family(prefix + "certificates", .gauge, "Names that ACME sees to, by state.")
        for state in CertificateList.Entry.State.allCases where state != .file {
            sample(prefix + "certificates", [("state", state.rawValue)], UInt64(list.count { $0.state == state }))
        }
        family(prefix + "due_timestamp_seconds", .gauge, "When a name is ordered or renewed next, in seconds since 1970.")
        for entry in list {
            if let due = entry.due { sample(prefix + "due_timestamp_seconds", [("domain", entry.name)], UInt64(clamping: due)) }
        }
        family(prefix + "overdue", .gauge, "1 for a name whose renewal is late by a tenth of its lifetime.")
        for entry in list where entry.notAfter != nil { sample(prefix + "overdue", [("domain", entry.name)], entry.isOverdue ? 1 : 0) }
        single(prefix + "issued_total", .counter, "Certificates issued since the start.", counts.issued)
        single(prefix + "failures_total", .counter, "Attempts that failed since the start.", counts.failed)
        single(
            prefix + "waiting_handshakes", .gauge, "Handshakes that wait for their certificate.",
            UInt64(clamping: certificates.acquired?.waiting ?? 0))
        guard let relay = certificates.cluster?.counts else { return }
        family(prefix + "challenges_answered_total", .counter, "Answers to HTTP-01, by whose challenge it was.")
        sample(prefix + "challenges_answered_total", [("of", "this_gateway")], relay.served)
        sample(prefix + "challenges_answered_total", [("of", "another_gateway")], relay.relayed)
        single(
            prefix + "relays_refused_total", .counter, "Answers of other gateways that were no key authorization of theirs.", relay.refused)
    }
}
