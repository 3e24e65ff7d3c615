import Crypto
import CryptoExtras
import FoundationEssentials
import Logging
import X509

/// One step of a name's schedule.
extension AutomaticCertificates {
    func perform(_ step: RenewalSchedule.Step, _ domain: DomainPattern) async {
        switch step {
        case .wait: break
        case .askRenewalInfo: await askRenewalInfo(domain)
        case .order(let rehearsal):
            if adopt(domain) { return }
            if rehearsal, let directory = settings.authorities[0].rehearsal {
                await rehearse(domain, directory)
            } else {
                await order(domain)
            }
        }
    }

    /// Another process that shares the directory may have renewed it.
    private func adopt(_ domain: DomainPattern) -> Bool {
        let now = clock()
        guard let stored = try? store.certificate(for: domain, kind: settings.keyKind), stored.notValidAfter > now else { return false }
        if let current = entries[domain]?.stored {
            guard stored.notValidBefore > current.notValidBefore, stored.notValidAfter > current.notValidAfter else { return false }
        }
        guard (try? install(stored, for: domain)) != nil else { return false }
        let lifetime = RenewalSchedule.Lifetime(notBefore: stored.notValidBefore, notAfter: stored.notValidAfter)
        record.names[domain.name]?.schedule.succeed(lifetime, isNew: false, now: now, random: random)
        record.names[domain.name]?.directory = nil
        logger.info("Certificate of another process taken over", metadata: ["domain": "\(domain)"])
        return true
    }

    // MARK: Renewal information

    private func askRenewalInfo(_ domain: DomainPattern) async {
        guard let name = record.names[domain.name], let authority = authority(of: name),
            let identifier = entries[domain]?.stored?.identifier
        else { return }
        var retryAfter: Date?
        do {
            var session = anonymousSession(authority)
            let result = await client(authority).perform(
                .renewalInfo(certificateID: identifier), stage: .renewalInfo, session: &session)
            // Also if the CA has none: its directory says so for all names.
            keep(session)
            let response = try result.get()
            let now = clock()
            retryAfter = ACMEDates.retryAfter(response.field("Retry-After"), now: now)
            let info = try ACMERenewalInfo.read(response.body)
            count { $0.renewalInfo &+= 1 }
            let former = record.names[domain.name]?.schedule.window
            record.names[domain.name]?.schedule.receive(info, retryAfter: retryAfter, now: now, random: random)
            if former?.start != info.start || former?.end != info.end {
                logger.info(
                    "The CA suggests a time for renewal",
                    metadata: [
                        "domain": "\(domain)", "from": "\(info.start.formatted(.iso8601))", "to": "\(info.end.formatted(.iso8601))",
                        "reason": "\(info.explanation ?? "")",
                    ])
            }
        } catch {
            if let failure = error as? ACMEFailure { retryAfter = failure.retryAfter }
            logger.debug("No renewal information", metadata: ["domain": "\(domain)", "error": "\(error)"])
            record.names[domain.name]?.schedule.failRenewalInfo(retryAfter: retryAfter, now: clock())
        }
    }

    // MARK: Orders

    private func rehearse(_ domain: DomainPattern, _ directory: ACMEURL) async {
        logger.info("Rehearsing at the staging directory", metadata: ["domain": "\(domain)", "directory": "\(directory)"])
        switch await order(domain, at: settings.authorities[0], directory: directory, isRehearsal: true) {
        case .success: record.names[domain.name]?.schedule.rehearsalSucceeded()
        case .failure(let failure): failed(domain, failure, isRehearsal: true)
        }
    }

    /// At the first authority that issues.
    private func order(_ domain: DomainPattern) async {
        var failures: [ACMEFailure] = []
        for authority in settings.authorities {
            guard !Task.isCancelled, let name = record.names[domain.name] else { return }
            let now = clock()
            let directory = authority.directory.text
            let limits = [name.blocked[directory], paused[directory]].compactMap { $0 }
            // Further ahead than any limit that is taken: the clock was wrong then.
            if let until = limits.filter({ $0 > now && $0 <= now + ACMEDates.longestRetry }).max() {
                failures.append(
                    ACMEFailure(.order, .rateLimited, "a limit of \(directory) holds until \(until.formatted(.iso8601))", retryAfter: until)
                )
                continue
            }
            if settings.authorities.count > 1, record.budgets[directory]?.nextTime(names(of: domain), now: now) != nil { continue }
            switch await order(domain, at: authority, directory: authority.directory, isRehearsal: false) {
            case .success(let certificate): return succeeded(domain, certificate, authority)
            case .failure(let failure):
                if failure.kind == .rateLimited {
                    let until = failure.retryAfter ?? clock() + 3_600
                    record.names[domain.name]?.blocked[directory] = until
                    if Self.isOfAccount(failure) { paused[directory] = until }
                }
                failures.append(failure)
            }
        }
        guard !Task.isCancelled else { return }
        // One that is blocked does not hold up the others.
        let limits = failures.filter { $0.kind == .rateLimited }
        let first =
            failures.first { $0.kind != .rateLimited }
            ?? limits.min { ($0.retryAfter ?? .distantFuture) < ($1.retryAfter ?? .distantFuture) }
        failed(
            domain, first ?? ACMEFailure(.order, .unavailable, "every CA has seen too many failed validations of late"), isRehearsal: false)
    }

    private func order(
        _ domain: DomainPattern, at authority: ACMEAuthority, directory: ACMEURL, isRehearsal: Bool
    ) async -> Result<ACMECertificate, ACMEFailure> {
        let names = names(of: domain)
        let key: Certificate.PrivateKey
        let session: ACMESession
        do {
            key = try Self.makeKey(settings.keyKind)
            session = try await self.session(directory, authority)
        } catch {
            return .failure(error as? ACMEFailure ?? ACMEFailure(.account, .unavailable, "\(error)"))
        }
        var plan = ACMEPlan(names: names, key: key, challenges: settings.challenges)
        plan.profile = settings.profile
        plan.preferredIssuer = settings.preferredIssuer
        if !isRehearsal {
            let now = clock()
            if let budget = record.budgets[directory.text] {
                plan.maximumFailures = max(1, names.map { budget.remaining($0, now: now) }.min() ?? ValidationBudget.limit)
            }
            let isSameCA = record.names[domain.name]?.directory == directory.text
            if isSameCA, let stored = entries[domain]?.stored, stored.notValidAfter > now { plan.replaces = stored.identifier }
        }
        logger.info("Ordering a certificate", metadata: ["domain": "\(domain)", "directory": "\(directory)"])
        var order = ACMEOrder(plan, session: session)
        let result = await issue(&order, at: authority)
        keep(order.session)
        if order.mayHaveIssued, !isRehearsal { record.names[domain.name]?.schedule.countIssued(now: clock()) }
        for note in order.notes { logger.warning("A challenge failed", metadata: ["domain": "\(domain)", "reason": "\(note)"]) }
        if !isRehearsal {
            for challenge in order.failedValidations {
                record.budgets[directory.text, default: ValidationBudget()].record(challenge.name, now: clock())
            }
        }
        return result
    }

    /// A limit that holds for every name: of the account, or of everybody at this address.
    private static func isOfAccount(_ failure: ACMEFailure) -> Bool {
        switch failure.stage {
        case .directory, .nonce, .account: true
        default: "\(failure)".contains("new orders")
        }
    }

    /// RFC 8555 says nothing of keys: a new one for each certificate.
    private static func makeKey(_ kind: CertificateStore.KeyKind) throws -> Certificate.PrivateKey {
        switch kind {
        case .ecdsa: Certificate.PrivateKey(P256.Signing.PrivateKey())
        case .rsa: Certificate.PrivateKey(try _RSA.Signing.PrivateKey(keySize: .bits2048))
        }
    }

    private func succeeded(_ domain: DomainPattern, _ certificate: ACMECertificate, _ authority: ACMEAuthority) {
        // The route may have gone meanwhile.
        guard entries[domain] != nil else { return }
        let now = clock()
        do {
            let pem = try certificate.key.serializeAsPEM().pemString + "\n" + (try certificate.chainPEM())
            let stored = try StoredCertificate(pem: pem, source: "the new certificate")
            write(stored, for: domain)
            try install(stored, for: domain)
            let lifetime = RenewalSchedule.Lifetime(notBefore: stored.notValidBefore, notAfter: stored.notValidAfter)
            record.names[domain.name]?.schedule.succeed(lifetime, now: now, random: random)
            record.names[domain.name]?.directory = authority.directory.text
            record.names[domain.name]?.blocked = [:]
            count { $0.issued &+= 1 }
            logger.notice(
                "Certificate issued",
                metadata: [
                    "domain": "\(domain)", "issuer": "\(LogText.escape(stored.issuer))",
                    "expires": "\(stored.notValidAfter.formatted(.iso8601))",
                ])
        } catch {
            record.names[domain.name]?.schedule.countIssued(now: now)
            failed(domain, ACMEFailure(.verification, .refused, "the certificate cannot be served: \(error)"), isRehearsal: false)
        }
    }

    private func failed(_ domain: DomainPattern, _ failure: ACMEFailure, isRehearsal: Bool) {
        guard !Task.isCancelled else { return }
        let now = clock()
        record.names[domain.name]?.schedule.fail(failure, rehearsal: isRehearsal, now: now, random: random)
        count { $0.failed &+= 1 }
        let next = record.names[domain.name]?.schedule.orderTime(now: now) ?? now
        let validity = entries[domain]?.stored.map { "until \($0.notValidAfter.formatted(.iso8601))" } ?? "none"
        logger.warning(
            isRehearsal ? "Certificate not issued at the staging directory" : "Certificate not issued",
            metadata: [
                "domain": "\(domain)", "reason": "\(failure)", "next": "\(next.formatted(.iso8601))", "served": "\(validity)",
            ])
    }
}
