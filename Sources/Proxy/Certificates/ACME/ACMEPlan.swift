import Inet
import X509

/// The ways to show that a name is ours.
package enum ACMEChallengeType: String, Codable, CaseIterable, Sendable {
    /// RFC 8555 §8.3.
    case http01 = "http-01"
    /// RFC 8737.
    case tlsALPN01 = "tls-alpn-01"
    /// RFC 8555 §8.4; for wildcards too (§7.1.3).
    case dns01 = "dns-01"
    /// draft-ietf-acme-dns-persist; for wildcards too.
    case dnsPersist01 = "dns-persist-01"

    package func isUsable(for name: DomainPattern) -> Bool {
        switch self {
        case .http01, .tlsALPN01: !name.isWildcard
        case .dns01, .dnsPersist01: true
        }
    }
}

/// What has to stand where the CA looks before it is told to look.
package struct ACMEChallenge: Hashable, Sendable {
    package var type: ACMEChallengeType
    /// As ordered: may be a wildcard.
    package var name: DomainPattern
    /// Empty for `dnsPersist01`, as is the next.
    package var token: String
    package var keyAuthorization: String
    /// For `dnsPersist01` alone: what the record is to say.
    package var persistDemand: DNSPersistDemand?

    package init(
        type: ACMEChallengeType, name: DomainPattern, token: String, keyAuthorization: String, persistDemand: DNSPersistDemand? = nil
    ) {
        self.type = type
        self.name = name
        self.token = token
        self.keyAuthorization = keyAuthorization
        self.persistDemand = persistDemand
    }

    package init(type: ACMEChallengeType, name: DomainPattern, token: String, keyAuthorization: String) {
        self.type = type
        self.name = name
        self.token = token
        self.keyAuthorization = keyAuthorization
    }

    /// RFC 8555 §8.3: the path at which plain HTTP answers with the key authorization.
    package var httpPath: String { "/.well-known/acme-challenge/" + token }
    /// RFC 8555 §8.4.
    package var dnsName: String { "_acme-challenge." + name.constraint }
    package var dnsValue: String { KeyAuthorization.dnsValue(keyAuthorization) }
    /// RFC 8737 §3.
    package var tlsALPNDigest: [UInt8] { KeyAuthorization.tlsALPNDigest(keyAuthorization) }
}

/// What one issuance is to bring, and within which bounds.
package struct ACMEPlan: Sendable {
    package var names: [DomainPattern]
    /// New for every certificate.
    package var key: Certificate.PrivateKey
    /// In order of preference.
    package var challenges: [ACMEChallengeType]
    /// One of those in the directory.
    package var profile: String?
    /// `CertificateID` of the certificate that this one is to follow (RFC 9773 §5).
    package var replaces: String?
    /// Common name of the issuer at the top of the chain, if the CA has several (RFC 8555 §7.4.2).
    package var preferredIssuer: String?
    /// So many validations of one name may fail, all types together.
    package var maximumFailures = 4
    /// The whole issuance, with whatever presenting takes.
    package var timeLimit = Duration.seconds(900)

    package init(names: [DomainPattern], key: Certificate.PrivateKey, challenges: [ACMEChallengeType]) {
        self.names = names
        self.key = key
        self.challenges = challenges
    }
}

/// The body of newOrder, made when the directory is known.
///
/// Source: RFC 8555 §7.4, RFC 9773 §5.
package struct ACMENewOrder: Sendable {
    var names: [DomainPattern]
    var profile: String?
    var replaces: String?

    func payload(_ directory: ACMEDirectory) throws(ACMEFault) -> [UInt8] {
        let identifiers = names.map { #"{"type":"dns","value":\#(JWS.quoted($0.name))}"# }.joined(separator: ",")
        var text = #"{"identifiers":["# + identifiers + "]"
        if let profile {
            guard let offered = directory.meta?.profiles, offered[profile] != nil else {
                let names = directory.meta?.profiles?.keys.sorted().joined(separator: ", ") ?? ""
                throw ACMEFault("this CA has no profile \(profile); it has: \(names.isEmpty ? "none" : names)")
            }
            text += #","profile":"# + JWS.quoted(profile)
        }
        if let replaces, directory.renewalInfo != nil { text += #","replaces":"# + JWS.quoted(replaces) }
        return Array((text + "}").utf8)
    }
}
