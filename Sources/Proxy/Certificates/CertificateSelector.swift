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
}

/// Chooses the certificate by server name. Thread-safe: event loops ask it for every new connection, reload and routes change it.
///
/// A lookup takes a lock for less than a microsecond; making a leaf of the internal CA (once a domain and five days) holds it for
/// the length of two P-256 operations, which also keeps a crowd of first clients from making the same leaf at once.
package final class CertificateSelector: Sendable {
    package enum Choice: Sendable {
        case show(ServedCertificate, serverName: String?)
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
            metadata: ["cacheDir": "\(configuration.stateDirectory)", "email": "\(configuration.email)"])
        let source: Source
        if configuration.certificates.isEmpty {
            source = .internalCA(nil, LeafCache(capacity: configuration.leafCacheCapacity))
        } else {
            source = .files(
                try Self.loadFiles(
                    configuration.certificates, applicationProtocols: configuration.applicationProtocols, logger: logger, now: clock()))
        }
        state = Mutex(State(source: source, certificates: configuration.certificates))
        try update(domains: configuration.domains)
    }

    /// The certificate for a connection. Only names of known domains are answered, and only if a certificate covers them.
    package func choose(serverName: [UInt8]?) -> Choice {
        guard let serverName else {
            return state.withLock { state in
                if case .files(let files) = state.source, let certificate = files.default { return .show(certificate, serverName: nil) }
                return .refuse(.missingExtension, .missingName)
            }
        }
        guard let host = DomainPattern.normalizedHost(String(decoding: serverName, as: UTF8.self)) else {
            return .refuse(.unrecognizedName, .unknownName)
        }
        let now = clock()
        do {
            let certificate = try state.withLock { state in try Self.certificate(for: host, in: &state, configuration, now: now) }
            guard let certificate else { return .refuse(.unrecognizedName, .unknownName) }
            return .show(certificate, serverName: host)
        } catch {
            logger.error("No certificate", metadata: ["domain": "\(host)", "error": "\(error)"])
            return .refuse(.internalError, .certificateUnavailable)
        }
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
        for text in domains {
            guard let domain = DomainPattern(text) else { throw .invalidDomain(text) }
            if !list.contains(domain) { list.append(domain) }
        }
        return list
    }

    /// The files, read now; without any the internal CA, the one in use if it is.
    private func source(_ certificates: [CertificateFiles], former: Source) throws(CertificateFileError) -> Source {
        guard certificates.isEmpty else {
            return .files(
                try Self.loadFiles(
                    certificates, applicationProtocols: configuration.applicationProtocols, logger: logger, now: clock()))
        }
        if case .internalCA = former { return former }
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
            case (.files, _): state.source = source
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
        state.withLock { $0.certificates.isEmpty } ? InternalCA.certificatePath(in: configuration.stateDirectory) : nil
    }

    /// For status and metrics: what is configured, or the internal root.
    package var expiries: [(source: String, notValidAfter: Date)] {
        state.withLock { state in
            switch state.source {
            case .files(let files): files.all.map { ($0.source, $0.notValidAfter) }
            case .internalCA(let ca, _): ca.map { [("internal CA", $0.notValidAfter)] } ?? []
            }
        }
    }

    package var refusals: [TLSRefusal: UInt64] { state.withLock { $0.refusals } }
    package var cachedLeaves: Int {
        state.withLock { if case .internalCA(_, let leaves) = $0.source { leaves.count } else { 0 } }
    }

    func count(_ refusal: TLSRefusal) { state.withLock { $0.refusals[refusal, default: 0] &+= 1 } }

    private static func certificate(
        for host: String, in state: inout State, _ configuration: TLSFrontConfiguration, now: Date
    ) throws(CertificateFileError) -> ServedCertificate? {
        guard let domain = state.domains.value(for: host)?.value else { return nil }
        switch state.source {
        case .files(let files): return files.byName.value(for: host)?.value
        case .internalCA(nil, _): return nil
        case .internalCA(.some(let ca), var leaves):
            // Parked while it changes, so that the dictionary is not copied.
            state.source = .internalCA(ca, LeafCache(capacity: 1))
            defer { state.source = .internalCA(ca, leaves) }
            if let leaf = leaves.certificate(for: domain.name, now: now) { return leaf }
            let leaf = try ca.issue(for: domain, now: now)
            let certificate = try ServedCertificate(leaf, for: domain, applicationProtocols: configuration.applicationProtocols)
            leaves.insert(certificate, for: domain.name)
            return certificate
        }
    }

    /// The CA in use if it still does, else the one on disk, else a new one.
    private func currentCA(_ source: Source, domains: [DomainPattern]) throws(CertificateFileError) -> (ca: InternalCA?, isNew: Bool) {
        guard case .internalCA(let current, _) = source, !domains.isEmpty else {
            if case .internalCA(let current, _) = source { return (current, false) }
            return (nil, false)
        }
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
