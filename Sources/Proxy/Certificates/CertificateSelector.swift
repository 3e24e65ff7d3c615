import FoundationEssentials
import Logging
import NIOCore
import NIOSSL
import Synchronization

/// What the TLS front needs to know.
package struct TLSFrontConfiguration: Sendable {
    /// Domains and wildcards that have a tunnel, enabled or not: only these are accepted as server names.
    package var domains: [String]
    /// Configured certificates. If there are any, the internal CA never steps in.
    package var certificates: [CertificateFiles]
    /// Holds the internal CA.
    package var stateDirectory: String
    /// For the log only: the ACME account's address, empty without ACME.
    package var email: String
    package var applicationProtocols: [String]
    package var leafCacheCapacity: Int
    /// What ACME brings; the internal CA then never steps in, either.
    package var acquired: AcquiredCertificates?
    /// Validations by TLS-ALPN-01 that are under way.
    package var challenges: ChallengeBoard?
    /// For the log: where ACME keeps its certificates.
    package var cacheDirectory: String?

    package init(
        domains: [String], certificates: [CertificateFiles] = [], stateDirectory: String, email: String = "",
        applicationProtocols: [String] = ["h2", "http/1.1"], leafCacheCapacity: Int = CertificateSelector.defaultLeafCacheCapacity
    ) {
        self.domains = domains
        self.certificates = certificates
        self.stateDirectory = stateDirectory
        self.email = email
        self.applicationProtocols = applicationProtocols
        self.leafCacheCapacity = leafCacheCapacity
    }
}

/// What a client was shown: fixed for the life of its connection.
package struct PresentedCertificate: Sendable {
    /// Normalised; nil if the client sent none and the default certificate was shown.
    package let serverName: String?
    package let names: [DomainPattern]

    /// Whether a request for this host may be answered on this connection; otherwise it is 421.
    package func covers(_ host: String) -> Bool {
        guard let host = DomainPattern.normalizedHost(host) else { return false }
        return names.contains { $0.covers(host) }
    }
}

/// Why a connection ended before its handshake.
package enum TLSRefusal: String, CaseIterable, Sendable {
    case unknownName, missingName, malformed, tooLong, plainHTTP, notTLS, certificateUnavailable
    /// A validation by TLS-ALPN-01 that nobody here has asked for.
    case noChallenge
}

/// Chooses the certificate by server name. Thread-safe: event loops ask it for every new connection, reload and routes change it.
///
/// A lookup takes a lock for less than a microsecond; making a leaf of the internal CA (once a domain and five days) holds it for
/// the length of two P-256 operations, which also keeps a crowd of first clients from making the same leaf at once.
package final class CertificateSelector: Sendable {
    package enum Choice: Sendable {
        case show(ServedCertificate, serverName: String?)
        /// It is being issued.
        case wait(CertificateWait)
        case refuse(TLSAlert, TLSRefusal)
    }

    private struct State: Sendable {
        var domains = DomainTable<DomainPattern>()
        var list: [DomainPattern] = []
        var source: Source
        var certificates: [CertificateFiles]
        var refusals: [TLSRefusal: UInt64] = [:]
    }

    private enum Source: Sendable {
        case files(PEMCertificates)
        /// No CA before there is a domain to constrain it to.
        case internalCA(InternalCA?, LeafCache)
        /// Files where there are any for a name, ACME for the others.
        case acme(PEMCertificates?, AcquiredCertificates)

        var files: PEMCertificates? {
            switch self {
            case .files(let files): files
            case .acme(let files, _): files
            case .internalCA: nil
            }
        }
    }

    private let configuration: TLSFrontConfiguration
    private let logger: Logger
    private let clock: @Sendable () -> Date
    private let state: Mutex<State>
    /// Held around changes, which touch files: lookups do not wait for them.
    private let changes = Mutex(())

    package init(
        configuration: TLSFrontConfiguration, logger: Logger, clock: @escaping @Sendable () -> Date = { Date() }
    ) throws(CertificateFileError) {
        self.configuration = configuration
        self.logger = logger
        self.clock = clock
        logger.info(
            "Certificate manager created",
            metadata: [
                "cacheDir": "\(configuration.cacheDirectory ?? configuration.stateDirectory)", "email": "\(configuration.email)",
            ])
        let source = try Self.source(configuration.certificates, former: nil, configuration, logger: logger, now: clock())
        state = Mutex(State(source: source, certificates: configuration.certificates))
        try update(domains: configuration.domains)
    }

    /// The certificate for a connection. Only names of known domains are answered, and only if a certificate covers them.
    package func choose(serverName: [UInt8]?) -> Choice {
        guard let serverName else {
            return state.withLock { state in
                if let certificate = state.source.files?.default { return .show(certificate, serverName: nil) }
                return .refuse(.missingExtension, .missingName)
            }
        }
        guard let host = DomainPattern.normalizedHost(String(decoding: serverName, as: UTF8.self)) else {
            return .refuse(.unrecognizedName, .unknownName)
        }
        let now = clock()
        do {
            return try state.withLock { state in try Self.choice(for: host, in: &state, configuration, now: now) }
                ?? .refuse(.unrecognizedName, .unknownName)
        } catch {
            logger.error("No certificate", metadata: ["domain": "\(host)", "error": "\(error)"])
            return .refuse(.internalError, .certificateUnavailable)
        }
    }

    /// Whether a host, normalised, has a route.
    package func isRouted(_ host: String) -> Bool { state.withLock { $0.domains.value(for: host) != nil } }

    /// What a validation by TLS-ALPN-01 is shown; nil if none is under way for the name.
    func challenge(serverName: [UInt8]?) -> NIOSSLContext? {
        guard let challenges = configuration.challenges, let serverName,
            let host = DomainPattern.normalizedHost(String(decoding: serverName, as: UTF8.self))
        else { return nil }
        return challenges.context(for: host)
    }

    /// Whether the certificate that a client with this server name gets covers the host, too. For live connections ask
    /// ``PresentedCertificate/covers(_:)``, which a later change of certificates does not alter.
    package func covers(host: String, sni: String?) -> Bool {
        guard case .show(let certificate, let serverName) = choose(serverName: sni.map { Array($0.utf8) }) else { return false }
        return PresentedCertificate(serverName: serverName, names: certificate.names).covers(host)
    }

    /// Takes the list of domains that have tunnels now. Touches files if the internal CA must be replaced: not for event loops.
    package func update(domains: [String]) throws(CertificateFileError) {
        let list = try Self.patterns(domains)
        try changes.withLock { _ throws(CertificateFileError) in
            let before = state.withLock { $0 }
            if list != before.list { try publish(list, before.source, before.certificates, former: before.list) }
        }
    }

    /// Takes domains and configured certificates, whose files are read again. On an error everything stays as it was.
    package func update(domains: [String], certificates: [CertificateFiles]) throws(CertificateFileError) {
        let list = try Self.patterns(domains)
        try changes.withLock { _ throws(CertificateFileError) in
            let before = state.withLock { $0 }
            try publish(list, try source(certificates, former: before.source), certificates, former: before.list)
        }
    }

    /// Reads configured certificate files again, and replaces an internal CA that nears its end. On an error everything stays as it
    /// was. Call it every hour or so; not on an event loop.
    package func refresh() throws(CertificateFileError) {
        try changes.withLock { _ throws(CertificateFileError) in
            let before = state.withLock { $0 }
            try publish(before.list, try source(before.certificates, former: before.source), before.certificates, former: before.list)
        }
    }

    private static func patterns(_ domains: [String]) throws(CertificateFileError) -> [DomainPattern] {
        var list: [DomainPattern] = []
        var known: Set<DomainPattern> = []
        for text in domains {
            guard let domain = DomainPattern(text) else { throw .invalidDomain(text) }
            if known.insert(domain).inserted { list.append(domain) }
        }
        return list
    }

    private func source(_ certificates: [CertificateFiles], former: Source) throws(CertificateFileError) -> Source {
        try Self.source(certificates, former: former, configuration, logger: logger, now: clock())
    }

    /// The files, read now, and ACME beside them if it is on; without either the internal CA, the one in use if it is.
    private static func source(
        _ certificates: [CertificateFiles], former: Source?, _ configuration: TLSFrontConfiguration, logger: Logger, now: Date
    ) throws(CertificateFileError) -> Source {
        var files: PEMCertificates?
        if !certificates.isEmpty {
            files = try loadFiles(certificates, applicationProtocols: configuration.applicationProtocols, logger: logger, now: now)
        }
        if let acquired = configuration.acquired { return .acme(files, acquired) }
        if let files { return .files(files) }
        if case .internalCA = former, let former { return former }
        return .internalCA(nil, LeafCache(capacity: configuration.leafCacheCapacity))
    }

    private func publish(
        _ list: [DomainPattern], _ source: Source, _ certificates: [CertificateFiles], former: [DomainPattern]
    ) throws(CertificateFileError) {
        if list != former { logger.info("Updating host policy", metadata: ["domains": .array(list.map { "\($0)" })]) }
        let ca = try currentCA(source, domains: list)
        if case .files(let files) = source { warnOfUncovered(list, files) }
        var table = DomainTable<DomainPattern>()
        for domain in list { table[domain] = domain }
        state.withLock { state in
            state.list = list
            state.domains = table
            state.certificates = certificates
            switch (source, state.source) {
            case (.files, _), (.acme, _): state.source = source
            // Clients may have had leaves made meanwhile.
            case (.internalCA, .internalCA(_, var leaves)) where !ca.isNew:
                leaves.removeAll { name in !list.contains { $0.name == name } }
                state.source = .internalCA(ca.ca, leaves)
            case (.internalCA, _): state.source = .internalCA(ca.ca, LeafCache(capacity: configuration.leafCacheCapacity))
            }
        }
    }

    /// The file that clients of the internal CA must trust; nil if certificates are configured.
    package var internalCAPath: String? {
        state.withLock { $0.certificates.isEmpty } && configuration.acquired == nil
            ? InternalCA.certificatePath(in: configuration.stateDirectory) : nil
    }

    /// For metrics: what is configured, each file once though it stands in several tables, or the internal root.
    package var expiries: [(source: String, notValidAfter: Date)] {
        state.withLock { state in
            if case .internalCA(let ca, _) = state.source { return ca.map { [("internal CA", $0.notValidAfter)] } ?? [] }
            var sources: Set<String> = []
            return (state.source.files?.all ?? []).filter { sources.insert($0.source).inserted }.map { ($0.source, $0.notValidAfter) }
        } + (configuration.acquired?.all.map { ("\($0.domain)", $0.certificate.notValidAfter) } ?? [])
    }

    /// The configured ones, without those of ACME.
    package var files: [ServedCertificate] { state.withLock { $0.source.files?.all ?? [] } }

    /// Whether a configured file serves this domain, so that ACME need not.
    package func isCoveredByFile(_ domain: DomainPattern) -> Bool {
        state.withLock { state in
            guard let files = state.source.files else { return false }
            return files.byName[domain] != nil || (!domain.isWildcard && files.byName.value(for: domain.name) != nil)
        }
    }

    package var refusals: [TLSRefusal: UInt64] { state.withLock { $0.refusals } }
    package var cachedLeaves: Int {
        state.withLock { if case .internalCA(_, let leaves) = $0.source { leaves.count } else { 0 } }
    }

    func count(_ refusal: TLSRefusal) { state.withLock { $0.refusals[refusal, default: 0] &+= 1 } }

    private static func choice(
        for host: String, in state: inout State, _ configuration: TLSFrontConfiguration, now: Date
    ) throws(CertificateFileError) -> Choice? {
        guard let domain = state.domains.value(for: host)?.value else { return nil }
        switch state.source {
        case .files(let files): return files.byName.value(for: host).map { .show($0.value, serverName: host) }
        case .acme(let files, let acquired):
            if let certificate = files?.byName.value(for: host)?.value { return .show(certificate, serverName: host) }
            switch acquired.answer(host: host, domain: domain) {
            case .show(let certificate): return .show(certificate, serverName: host)
            case .wait: return .wait(CertificateWait(host: host, domain: domain, certificates: acquired))
            case .missing: return .refuse(.internalError, .certificateUnavailable)
            }
        case .internalCA(nil, _): return nil
        case .internalCA(.some(let ca), var leaves):
            // Parked while it changes, so that the dictionary is not copied.
            state.source = .internalCA(ca, LeafCache(capacity: 1))
            defer { state.source = .internalCA(ca, leaves) }
            if let leaf = leaves.certificate(for: domain.name, now: now) { return .show(leaf, serverName: host) }
            let leaf = try ca.issue(for: domain, now: now)
            let certificate = try ServedCertificate(leaf, for: domain, applicationProtocols: configuration.applicationProtocols)
            leaves.insert(certificate, for: domain.name)
            return .show(certificate, serverName: host)
        }
    }

    /// The CA in use if it still does, else the one on disk, else a new one.
    private func currentCA(_ source: Source, domains: [DomainPattern]) throws(CertificateFileError) -> (ca: InternalCA?, isNew: Bool) {
        guard case .internalCA(let current, _) = source else { return (nil, false) }
        guard !domains.isEmpty else { return (current, false) }
        let now = clock()
        if let current, current.reasonForReplacement(domains: domains, now: now) == nil { return (current, false) }
        let path = InternalCA.certificatePath(in: configuration.stateDirectory)
        let (ca, origin) = try InternalCA.open(in: configuration.stateDirectory, for: domains, now: now)
        let metadata: Logger.Metadata = [
            "file": "\(path)", "domains": .array(ca.permittedSubtrees.map { "\($0)" }),
            "expires": "\(ca.notValidAfter.formatted(.iso8601))",
        ]
        switch origin {
        case .loaded: logger.info("Internal CA loaded", metadata: metadata)
        case .created: logger.notice("Internal CA created; clients must trust this file", metadata: metadata)
        case .replaced(let reason):
            let all = metadata.merging(["reason": "\(reason)"]) { $1 }
            logger.warning("Internal CA replaced; clients must trust the new file", metadata: all)
        }
        return (ca, true)
    }

    private func warnOfUncovered(_ domains: [DomainPattern], _ files: PEMCertificates) {
        for domain in domains where files.byName[domain] == nil && files.byName.value(for: domain.name) == nil {
            logger.warning(
                "No configured certificate covers this domain: its clients get TLS alert 112. Add a certificate for it",
                metadata: ["domain": "\(domain)"])
        }
    }

    private static func loadFiles(
        _ certificates: [CertificateFiles], applicationProtocols: [String], logger: Logger, now: Date
    ) throws(CertificateFileError) -> PEMCertificates {
        let files = try PEMCertificates.load(certificates, applicationProtocols: applicationProtocols, now: now)
        for warning in files.warnings { logger.warning("\(warning)") }
        return files
    }

    package static let defaultLeafCacheCapacity = 1_024
}
