import Crypto
import FoundationEssentials
import Inet
import Logging
import NIOCore
import NIOPosix
import X509

/// Sees to it that every name with a tunnel has a valid certificate: finds those that are there, orders those that are not, renews them
/// in time, and tries again by ``RenewalSchedule`` after a failure.
///
///     route added ─▶ in the store? ─yes─▶ installed ─▶ its time comes ─▶ ordered ─▶ checked ─▶ stored ─▶ installed ...
///                        └─no─▶ ordered at once (handshakes wait) ─failed─▶ back-off ─▶ ...
///
/// One issuance at a time for each name, a bounded number in all. It never touches a certificate before its successor is there.
package actor AutomaticCertificates {
    struct Entry {
        /// The route is enabled.
        var isWanted = true
        /// Why it is not ordered, though it is wanted.
        var obstacle: String?
        var stored: StoredCertificate?
        /// The file could not be written: tried again.
        var isUnsaved = false
        var since: Date
    }

    let settings: ACMESettings
    let store: CertificateStore
    let acquired: AcquiredCertificates
    let board: ChallengeBoard
    let logger: Logger
    let clock: @Sendable () -> Date
    private let presenter: any ACMEPresenter
    /// One for each authority.
    private let clients: [ACMEClient]
    private let file: IssuanceFile
    private let isCoveredByFile: @Sendable (DomainPattern) -> Bool
    let random: RandomSource

    var record: IssuanceRecord
    var entries: [DomainPattern: Entry] = [:]
    var accountKey: ACMEKey
    /// By directory.
    var sessions: [String: ACMESession] = [:]
    var registrations: [String: Task<ACMESession, any Error>] = [:]
    var running: [DomainPattern: Task<Void, Never>] = [:]
    private var alarm: Scheduled<Void>?
    private let loop: any EventLoop
    private var nextMissed = Date.distantPast
    private var isStopped = false
    private var isStarted = false
    private var isDirty = false
    /// The account's key is being changed: no order begins.
    var isRollingOver = false
    /// What is left of a change that was interrupted.
    private var rollOverRest: Task<Void, Never>?
    /// CAs that have said when they may be asked again, whatever the name.
    var paused: [String: Date] = [:]
    private var generation = 0
    private(set) var counts = Counts()

    package struct Counts: Sendable, Equatable {
        package var issued: UInt64 = 0
        package var failed: UInt64 = 0
        package var renewalInfo: UInt64 = 0
    }

    /// - Parameters:
    ///   - directory: of the state: the record is there.
    ///   - dns: presents DNS-01.
    ///   - persistent: looks at records for DNS-PERSIST-01.
    ///   - isCoveredByFile: a configured certificate serves the name.
    package init(
        settings: ACMESettings, stateDirectory: String, acquired: AcquiredCertificates, board: ChallengeBoard,
        dns: (any ACMEPresenter)? = nil,
        persistent: (any ACMEPresenter)? = nil,
        userAgent: String, group: any EventLoopGroup, logger: Logger, random: RandomSource,
        isCoveredByFile: @escaping @Sendable (DomainPattern) -> Bool = { _ in false }, clock: @escaping @Sendable () -> Date = { Date() }
    ) throws {
        self.settings = settings
        self.acquired = acquired
        self.board = board
        self.logger = logger
        self.random = random
        self.clock = clock
        loop = group.next()
        self.isCoveredByFile = isCoveredByFile
        store = try CertificateStore(directory: settings.cacheDirectory, logger: logger, clock: clock)
        presenter = ChallengePresenter(board: board, store: store, dns: dns, persistent: persistent, logger: logger)
        clients = try settings.authorities.map { try ACMEClient(trustFile: $0.trustFile, userAgent: userAgent, group: group) }
        file = IssuanceFile(path: stateDirectory + "/acme.json", logger: logger)
        record = file.load(now: clock())
        accountKey = try Self.accountKey(store)
    }

    /// What every key authorization of this gateway ends in.
    package var thumbprint: String { accountKey.thumbprint }

    private static func accountKey(_ store: CertificateStore) throws -> ACMEKey {
        if let key = try store.accountKey() { return ACMEKey(key) }
        // Another process may be faster: then its key stays.
        try store.makeAccountKey()
        guard let key = try store.accountKey() else { throw ACMEFault("the account's key cannot be read back") }
        return ACMEKey(key)
    }

    // MARK: Names

    /// The names that are routed now. Certificates that are there are served when this returns; the others are ordered.
    /// - Parameter generation: of the list: an older one that comes late is ignored.
    package func update(domains: [(name: String, isEnabled: Bool)], generation: Int) {
        guard generation > self.generation, !isStopped else { return }
        self.generation = generation
        let now = clock()
        let wanted = Dictionary(
            domains.compactMap { entry in DomainPattern(entry.name).map { ($0, entry.isEnabled) } }, uniquingKeysWith: { $0 || $1 })
        for (domain, _) in entries where wanted[domain] == nil {
            entries[domain] = nil
            record.names[domain.name]?.gone = now
            // It keeps its place until it has taken away what it presented.
            running[domain]?.cancel()
        }
        for (domain, isEnabled) in wanted {
            if entries[domain] == nil {
                entries[domain] = Entry(since: now)
                find(domain, now: now)
            }
            entries[domain]?.isWanted = isEnabled
            entries[domain]?.obstacle = obstacle(domain)
            if let obstacle = entries[domain]?.obstacle, isEnabled, entries[domain]?.stored == nil {
                logger.warning("Certificate not found \(domain)", metadata: ["reason": "\(obstacle)"])
            }
            if entries[domain]?.stored == nil, isEnabled, entries[domain]?.obstacle == nil, !isCoveredByFile(domain) {
                acquired.expect(domain)
            }
        }
        acquired.keep(only: Set(wanted.keys))
        record.forget(before: now)
        writeRecord()
        advance()
    }

    /// What no attempt could get over.
    private func obstacle(_ domain: DomainPattern) -> String? {
        if let reason = CertificateStore.obstacle(domain) { return reason }
        if !domain.constraint.utf8.contains(UInt8(ascii: ".")) { return "no CA issues for a name without a dot" }
        guard settings.challenges.contains(where: { $0.isUsable(for: domain) }) else {
            return "a wildcard needs dns-01: write [acme.dns] and add dns-01 to challenges"
        }
        return nil
    }

    /// Takes what is in the store.
    private func find(_ domain: DomainPattern, now: Date) {
        var name = record.names[domain.name] ?? IssuanceRecord.Name()
        name.gone = nil
        defer { record.names[domain.name] = name }
        if CertificateStore.obstacle(domain) != nil { return }
        do throws(CertificateFileError) {
            let stored = try store.certificate(for: domain, kind: settings.keyKind)
            if let stored {
                let lifetime = RenewalSchedule.Lifetime(notBefore: stored.notValidBefore, notAfter: stored.notValidAfter)
                if name.schedule.lifetime != lifetime {
                    name.schedule.succeed(lifetime, isNew: false, now: now, random: random)
                    name.schedule.deferAsk(now: now, random: random)
                    name.directory = nil
                }
                // Not by force: a clock that is behind would have it ordered again at each start.
                if isTooEarly(stored, now: now) { name.schedule.lose() }
                // Once: what is known of failures is not forgotten at each start.
                if isForeign(stored, name), name.schedule.failures == 0 { name.schedule.forceNow(now) }
                try install(stored, for: domain)
                logger.info(
                    "Certificate loaded", metadata: ["domain": "\(domain)", "expires": "\(stored.notValidAfter.formatted(.iso8601))"])
            } else if name.schedule.lifetime != nil {
                name.schedule.lose()
                name.directory = nil
            }
        } catch {
            logger.error("A stored certificate cannot be used", metadata: ["domain": "\(domain)", "error": "\(error)"])
            // Another one is due then, not in two months.
            name.schedule.lose()
        }
    }

    /// From a CA that is configured no more, or from a staging one that never was: not what the operator wants to serve.
    private func isForeign(_ stored: StoredCertificate, _ name: IssuanceRecord.Name) -> Bool {
        if let directory = name.directory { return !settings.authorities.contains { $0.directory.text == directory } }
        let isStaging = stored.issuer.contains("(STAGING)")
        return isStaging && !settings.authorities.contains { $0.directory.text.contains("staging") }
    }

    func install(_ stored: StoredCertificate, for domain: DomainPattern) throws(CertificateFileError) {
        let served = try stored.served(
            applicationProtocols: ["h2", "http/1.1"], source: "ACME, \(domain)")
        acquired.install(served, for: domain)
        entries[domain]?.stored = stored
    }

    // MARK: Time

    /// From now on a CA can reach what it will look at.
    package func start() {
        isStarted = true
        guard store.hasNextAccountKey else { return advance() }
        isRollingOver = true
        rollOverRest = Task {
            await finishRollOver()
            isRollingOver = false
            advance()
        }
    }

    /// Begins what is due, and comes back when the next thing is.
    func advance() {
        guard isStarted, !isStopped, !isRollingOver else { return }
        let now = clock()
        if isDirty { writeRecord() }
        saveUnsaved()
        tellMissed(now)
        var next = now + Self.longestSleep
        // A name and its wildcard share what they may fail.
        var busy = Set(running.keys.map(\.constraint))
        // Names without a certificate first.
        for isUrgent in [true, false] {
            for (domain, entry) in entries where (entry.stored == nil) == isUrgent {
                guard entry.isWanted, entry.obstacle == nil, !busy.contains(domain.constraint), !isCoveredByFile(domain) else { continue }
                switch step(domain, entry, now: now) {
                case .wait(let until):
                    next = min(next, until)
                    guard entry.stored == nil else { continue }
                    if until <= now + Self.handshakePatience { acquired.expect(domain) } else { acquired.giveUp(domain) }
                case let step:
                    guard running.count < maximumConcurrent else { continue }
                    if entry.stored == nil { acquired.expect(domain) }
                    busy.insert(domain.constraint)
                    running[domain] = Task {
                        await self.perform(step, domain)
                        self.finished(domain)
                    }
                }
            }
        }
        wakeUp(in: next.timeIntervalSince(now))
    }

    private func wakeUp(in seconds: TimeInterval) {
        alarm?.cancel()
        let delay = min(max(seconds, Self.shortestSleep), Self.longestSleep)
        alarm = loop.scheduleTask(in: .milliseconds(Int64(delay * 1_000))) { [weak self] in
            guard let self else { return }
            Task { await self.advance() }
        }
    }

    /// Handshakes that found no certificate, at most one line a minute for each name.
    private func tellMissed(_ now: Date) {
        guard now >= nextMissed || nextMissed > now + Self.longestSleep else { return }
        nextMissed = now + Self.longestSleep
        let missed = acquired.takeMissed()
        if missed.count > Self.maximumMissed {
            logger.warning("Certificate not found, of many names", metadata: ["names": .stringConvertible(missed.count)])
        }
        for (domain, count) in missed.prefix(Self.maximumMissed) {
            let reason = entries[domain]?.obstacle ?? record.names[domain.name]?.schedule.lastFailure ?? "it is not there yet"
            logger.warning("Certificate not found \(domain)", metadata: ["handshakes": .stringConvertible(count), "reason": "\(reason)"])
        }
    }

    private func finished(_ domain: DomainPattern) {
        running[domain] = nil
        save()
        // Many names end at once: what is due is looked for some times a second, not for each of them.
        wakeUp(in: min(Double(entries.count) / 20_000, 0.5))
    }

    func step(_ domain: DomainPattern, _ entry: Entry, now: Date) -> RenewalSchedule.Step {
        let name = record.names[domain.name] ?? IssuanceRecord.Name()
        let issuer = authority(of: name)
        let offersInfo = issuer.map { sessions[$0.directory.text]?.directory.map { $0.renewalInfo != nil } ?? true } ?? false
        return name.schedule.step(
            now: now, hasRenewalInfo: offersInfo && entry.stored?.identifier != nil,
            hasStaging: settings.authorities[0].rehearsal != nil, budget: budgetTime(domain, now: now))
    }

    /// Whom the certificate came from.
    func authority(of name: IssuanceRecord.Name) -> ACMEAuthority? {
        settings.authorities.first { $0.directory.text == name.directory ?? settings.authorities[0].directory.text }
    }

    func names(of domain: DomainPattern) -> [DomainPattern] {
        guard let gateway = settings.gatewayName, gateway != domain else { return [domain] }
        return [domain, gateway]
    }

    /// When some authority may see a failed validation again; nil if one may now.
    func budgetTime(_ domain: DomainPattern, now: Date) -> Date? {
        var earliest: Date?
        for authority in settings.authorities {
            guard let time = record.budgets[authority.directory.text]?.nextTime(names(of: domain), now: now) else { return nil }
            earliest = min(earliest ?? time, time)
        }
        return earliest
    }

    func coversByFile(_ domain: DomainPattern) -> Bool { isCoveredByFile(domain) }

    func client(_ authority: ACMEAuthority) -> ACMEClient {
        clients[settings.authorities.firstIndex(of: authority) ?? 0]
    }

    func issue(_ order: inout ACMEOrder, at authority: ACMEAuthority) async -> Result<ACMECertificate, ACMEFailure> {
        await client(authority).issue(&order, presenter: presenter)
    }

    func count(_ change: (inout Counts) -> Void) { change(&counts) }

    // MARK: Files and the end

    /// Soon: with the next look at what is due, or at the end.
    func save() { isDirty = true }

    func writeRecord() {
        isDirty = false
        do {
            try file.save(record)
        } catch {
            logger.error("The record of certificates cannot be written", metadata: ["error": "\(error)"])
        }
    }

    /// - Returns: whether it is on disk.
    @discardableResult
    func write(_ stored: StoredCertificate, for domain: DomainPattern) -> Bool {
        do throws(CertificateFileError) {
            try store.save(stored, for: domain, kind: settings.keyKind)
            entries[domain]?.isUnsaved = false
            return true
        } catch {
            if entries[domain]?.isUnsaved == false {
                logger.error(
                    "A new certificate is served but could not be stored; it is tried again every minute",
                    metadata: ["domain": "\(domain)", "error": "\(error)"])
            }
            entries[domain]?.isUnsaved = true
            return false
        }
    }

    private func saveUnsaved() {
        for (domain, entry) in entries where entry.isUnsaved {
            if let stored = entry.stored, write(stored, for: domain) {
                logger.info("A certificate that could not be stored is stored now", metadata: ["domain": "\(domain)"])
            }
        }
    }

    /// Ends what is under way. Handshakes that wait fail.
    package func stop() async {
        isStopped = true
        alarm?.cancel()
        let tasks = running
        running = [:]
        for task in tasks.values { task.cancel() }
        for registration in registrations.values { registration.cancel() }
        rollOverRest?.cancel()
        await rollOverRest?.value
        for task in tasks.values { await task.value }
        acquired.keep(only: Set(entries.filter { $0.value.stored != nil }.keys))
        writeRecord()
        for client in clients { await client.shutdown() }
    }

    /// Two orders at once that both have the gateway's name would validate it at once, and TLS-ALPN-01 shows one certificate for a name.
    private var maximumConcurrent: Int { settings.gatewayName == nil ? 8 : 1 }

    /// Lines in a minute.
    static let maximumMissed = 20
    static let longestSleep: TimeInterval = 60
    static let shortestSleep: TimeInterval = 0.01
    static let handshakePatience: TimeInterval = 30
}
