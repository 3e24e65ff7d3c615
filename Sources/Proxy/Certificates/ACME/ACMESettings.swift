/// A certificate authority that speaks ACME, and how this gateway is known to it.
package struct ACMEAuthority: Sendable, Equatable {
    package var directory: ACMEURL
    /// Where retries are rehearsed, so that they do not count: the CA's staging directory.
    package var rehearsal: ACMEURL?
    /// Roots as PEM in place of the system's.
    package var trustFile: String?
    package var externalAccount: ExternalAccount?

    package init(directory: ACMEURL, rehearsal: ACMEURL? = nil, trustFile: String? = nil, externalAccount: ExternalAccount? = nil) {
        self.directory = directory
        self.rehearsal = rehearsal
        self.trustFile = trustFile
        self.externalAccount = externalAccount
    }

    /// Names that stand for directories.
    package static let known: [(name: String, directory: String, staging: String?)] = [
        (
            "letsencrypt", "https://acme-v02.api.letsencrypt.org/directory", "https://acme-staging-v02.api.letsencrypt.org/directory"
        ),
        ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory", nil),
        ("zerossl", "https://acme.zerossl.com/v2/DV90", nil),
    ]
}

/// Everything about certificates that come by themselves.
package struct ACMESettings: Sendable, Equatable {
    /// Where the CA writes to; may be empty.
    package var email: String
    /// In order of preference; there is at least one.
    package var authorities: [ACMEAuthority]
    package var cacheDirectory: String
    /// In order of preference.
    package var challenges: [ACMEChallengeType]
    package var profile: String?
    package var preferredIssuer: String?
    package var keyKind: CertificateStore.KeyKind
    /// A second name in every certificate, which tells this gateway's from those of others for the same domain.
    package var gatewayName: DomainPattern?
    package var cluster: ClusterSettings
    /// Who writes TXT records; nil without DNS-01.
    package var dns: DNSProviderSettings?

    package init(
        email: String = "", authorities: [ACMEAuthority], cacheDirectory: String,
        challenges: [ACMEChallengeType] = ACMESettings.standardChallenges, profile: String? = nil, preferredIssuer: String? = nil,
        keyKind: CertificateStore.KeyKind = .ecdsa, gatewayName: DomainPattern? = nil, cluster: ClusterSettings = ClusterSettings()
    ) {
        self.email = email
        self.authorities = authorities
        self.cacheDirectory = cacheDirectory
        self.challenges = challenges
        self.profile = profile
        self.preferredIssuer = preferredIssuer
        self.keyKind = keyKind
        self.gatewayName = gatewayName
        self.cluster = cluster
    }

    package static let standardChallenges: [ACMEChallengeType] = [.tlsALPN01, .http01]
    /// Where the original and other programs keep their certificates.
    package static let foreignCaches = ["/var/cache/kakuremichi/certs", "/var/cache/autocert", "./cache/autocert"]
}
