import FoundationEssentials

/// DNS-PERSIST-01: looks whether the operator's record is there; nothing is changed. When it is not, the error says what to add,
/// and the order takes its next type.
///
/// Source: draft-ietf-acme-dns-persist.
package struct DNSPersistChallenge: ACMEPresenter {
    private let propagation: DNSPropagation

    package init(propagation: DNSPropagation) { self.propagation = propagation }

    package func present(_ challenge: ACMEChallenge) async throws {
        guard challenge.type == .dnsPersist01, let demand = challenge.persistDemand else {
            throw DNSFault("\(challenge.type.rawValue) has no lasting record")
        }
        try await verify(demand, now: Date())
    }

    package func withdraw(_ challenge: ACMEChallenge) async {}

    /// Throws precisely why the CA would not take what stands there.
    package func verify(_ demand: DNSPersistDemand, now: Date) async throws(DNSFault) {
        guard let name = DNSName(demand.name) else { throw DNSFault("\(demand.name) is not a name") }
        let values: [String]
        do throws(DNSFault) {
            values = try await propagation.values(at: name)
        } catch {
            throw DNSFault("is there \(demand.zoneLine)? \(error.reason)")
        }
        try demand.check(values, now: now)
    }
}
