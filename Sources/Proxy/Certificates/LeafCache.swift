import FoundationEssentials

/// Certificates made by the internal CA, by the domain they are for. The one used longest ago makes room for a new one.
struct LeafCache: Sendable {
    private struct Entry: Sendable {
        var certificate: ServedCertificate
        var lastUse: UInt64
    }

    private var entries: [String: Entry] = [:]
    private var uses: UInt64 = 0
    let capacity: Int

    init(capacity: Int) {
        precondition(capacity > 0, "a leaf cache needs room for one certificate")
        self.capacity = capacity
    }

    var count: Int { entries.count }

    /// Nil if there is none, or if it ends so soon that a new one is due.
    mutating func certificate(for domain: String, now: Date) -> ServedCertificate? {
        guard let certificate = entries[domain]?.certificate else { return nil }
        guard now + InternalCA.leafRenewalWindow < certificate.notValidAfter else { return nil }
        uses &+= 1
        entries[domain]?.lastUse = uses
        return certificate
    }

    mutating func insert(_ certificate: ServedCertificate, for domain: String) {
        if entries[domain] == nil, entries.count >= capacity, let oldest = entries.min(by: { $0.value.lastUse < $1.value.lastUse })?.key {
            entries[oldest] = nil
        }
        uses &+= 1
        entries[domain] = Entry(certificate: certificate, lastUse: uses)
    }

    mutating func removeAll() { entries.removeAll() }

    /// Drops what belongs to a domain that is no longer served.
    mutating func removeAll(where isUnknown: (String) -> Bool) { entries = entries.filter { !isUnknown($0.key) } }
}
