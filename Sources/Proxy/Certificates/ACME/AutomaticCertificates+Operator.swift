import Crypto
import FoundationEssentials
import Logging

/// What an operator asks for, and what is told about the certificates.
extension AutomaticCertificates {
    // MARK: What there is

    package var list: [CertificateList.Entry] {
        let now = clock()
        return entries.keys.sorted { $0.name < $1.name }.map { domain in
            let entry = entries[domain] ?? Entry(since: now)
            let name = record.names[domain.name] ?? IssuanceRecord.Name()
            let due = due(domain, now: now)
            let isDue = due <= now
            let state: CertificateList.Entry.State
            if let stored = entry.stored {
                state = stored.notValidAfter <= now ? .expired : isDue || name.schedule.failures > 0 ? .renewing : .valid
            } else if entry.obstacle != nil || !entry.isWanted {
                state = .blocked
            } else {
                state = name.schedule.failures > 0 && !isDue ? .failed : .pending
            }
            return CertificateList.Entry(
                name: domain.name, state: state, names: entry.stored?.names.map(\.name) ?? [],
                issuer: entry.stored.map { LogText.escape($0.issuer, limit: 100) },
                notBefore: entry.stored.map { Self.seconds($0.notValidBefore) },
                notAfter: entry.stored.map { Self.seconds($0.notValidAfter) },
                due: entry.isWanted && entry.obstacle == nil ? Self.seconds(due) : nil,
                failures: name.schedule.failures,
                reason: entry.obstacle ?? (entry.isWanted ? name.schedule.lastFailure : "its route is disabled"),
                isOverdue: name.schedule.isOverdue(now: now))
        }
    }

    /// Names that should have a certificate and have none, since when, and why.
    package var missing: [MissingCertificate] {
        entries.compactMap { domain, entry in
            guard entry.stored == nil, entry.isWanted, !coversByFile(domain) else { return nil }
            return MissingCertificate(
                name: domain.name, since: entry.since,
                lastFailure: entry.obstacle ?? record.names[domain.name]?.schedule.lastFailure)
        }
    }

    /// Those that are served, for alerts.
    package var watched: [WatchedCertificate] {
        let now = clock()
        return entries.compactMap { domain, entry in
            guard let stored = entry.stored, !coversByFile(domain), let schedule = record.names[domain.name]?.schedule else { return nil }
            return WatchedCertificate(
                name: domain.name, notBefore: stored.notValidBefore, notAfter: stored.notValidAfter,
                isOverdue: entry.isWanted && schedule.isOverdue(now: now), lastFailure: schedule.lastFailure)
        }
    }

    /// When the next order is, with all limits.
    private func due(_ domain: DomainPattern, now: Date) -> Date {
        (record.names[domain.name] ?? IssuanceRecord.Name()).schedule.orderTime(now: now, budget: budgetTime(domain, now: now))
    }

    package var account: CertificateAccount {
        CertificateAccount(
            email: settings.email, thumbprint: thumbprint,
            registrations: settings.authorities.map { authority in
                let known = record.accounts[authority.directory.text]
                return CertificateAccount.Registration(
                    directory: authority.directory.text, url: known.flatMap { $0.thumbprint == thumbprint ? $0.url : nil },
                    issuer: caaIdentity(authority.directory.text).map { LogText.escape($0, limit: 253) })
            })
    }

    private static func seconds(_ date: Date) -> Int { Int(max(0, min(date.timeIntervalSince1970, 1e15))) }

    // MARK: What is done

    /// Orders it now, whatever the schedule says; the CA's limits hold.
    /// - Returns: the moment at which it can be.
    package func renew(_ text: String) throws -> Date {
        let domain = try known(text)
        if let obstacle = entries[domain]?.obstacle { throw AdminFault(error: "\(domain): \(obstacle)") }
        let now = clock()
        record.names[domain.name]?.schedule.forceNow(now)
        logger.notice("Certificate to be renewed now", metadata: ["domain": "\(domain)"])
        defer { advance() }
        guard case .wait(let until) = step(domain, entries[domain] ?? Entry(since: now), now: now) else { return now }
        return until
    }

    /// Tells the CA that the certificate is not to be trusted any more, stops serving it, and orders another one with a new key.
    /// - Parameter reason: RFC 5280 §5.3.1; nil is none given.
    package func revoke(_ text: String, reason: Int?) async throws {
        let domain = try known(text)
        guard let stored = entries[domain]?.stored, let name = record.names[domain.name] else {
            throw AdminFault(error: "there is no certificate for \(domain)")
        }
        let authority = authority(of: name) ?? settings.authorities[0]
        var session = try await self.session(authority.directory, authority)
        var result = await client(authority).perform(
            .revoke(certificate: stored.leafDER, reason: reason, key: nil), stage: .revocation, session: &session)
        keep(session)
        // One that another account ordered: its own key says so, too (RFC 8555 §7.6).
        if case .failure(let failure) = result, failure.kind == .refused, failure.problem?.type != "alreadyRevoked",
            let key = stored.keyPEM.flatMap({ ACMEKey(pem: $0) })
        {
            result = await client(authority).perform(
                .revoke(certificate: stored.leafDER, reason: reason, key: key), stage: .revocation, session: &session)
        }
        if case .failure(let failure) = result, failure.problem?.type != "alreadyRevoked" { throw AdminFault(error: "\(failure)") }
        // Whatever has come meanwhile stays; what was imported under several names goes under all.
        for (other, entry) in entries where entry.stored?.leafDER == stored.leafDER {
            logger.notice("Certificate revoked", metadata: ["domain": "\(other)"])
            acquired.remove(other)
            entries[other]?.stored = nil
            entries[other]?.since = clock()
            record.names[other.name]?.schedule.lose()
            record.names[other.name]?.schedule.forceNow(clock())
            do throws(CertificateFileError) {
                try store.retire(other, kind: settings.keyKind)
            } catch {
                logger.error("A revoked certificate stays in the cache", metadata: ["domain": "\(other)", "error": "\(error)"])
            }
        }
        writeRecord()
        advance()
    }

    /// The key and the chain as PEM.
    package func export(_ text: String) throws -> String {
        let domain = try known(text)
        guard let stored = entries[domain]?.stored else { throw AdminFault(error: "there is no certificate for \(domain)") }
        logger.notice("Certificate exported with its key", metadata: ["domain": "\(domain)"])
        return stored.pem
    }

    /// Serves it for every name of it that has a route, until it is renewed.
    /// - Returns: these names.
    package func adopt(pem: String) throws -> [String] {
        let stored: StoredCertificate
        do throws(CertificateFileError) {
            stored = try StoredCertificate(pem: pem, source: "the import")
        } catch {
            throw AdminFault(error: "\(error)")
        }
        let now = clock()
        guard stored.notValidAfter > now else {
            throw AdminFault(error: "the certificate expired at \(stored.notValidAfter.formatted(.iso8601))")
        }
        guard !isTooEarly(stored, now: now) else {
            throw AdminFault(
                error:
                    "the certificate is not valid before \(stored.notValidBefore.formatted(.iso8601)); import it then, or check this machine's clock"
            )
        }
        let domains = entries.keys.filter { domain in
            stored.names.contains(domain) || (!domain.isWildcard && stored.covers(domain.name))
        }.sorted { $0.name < $1.name }
        guard !domains.isEmpty else {
            throw AdminFault(error: "it is for \(stored.names.map(\.name).joined(separator: ", ")), and none of these has a route here")
        }
        for domain in domains {
            try store.save(stored, for: domain, kind: settings.keyKind)
            try install(stored, for: domain)
            let lifetime = RenewalSchedule.Lifetime(notBefore: stored.notValidBefore, notAfter: stored.notValidAfter)
            record.names[domain.name, default: IssuanceRecord.Name()].schedule.succeed(lifetime, isNew: false, now: now, random: random)
            record.names[domain.name]?.directory = nil
            logger.notice("Certificate imported", metadata: ["domain": "\(domain)"])
        }
        save()
        advance()
        return domains.map(\.name)
    }

    /// Clients would refuse it. An hour is left for clocks that differ.
    func isTooEarly(_ stored: StoredCertificate, now: Date) -> Bool { stored.notValidBefore > now + 3_600 }

    private func known(_ text: String) throws -> DomainPattern {
        guard let domain = DomainPattern(text), entries[domain] != nil else {
            throw AdminFault(
                error: "there is no route for \(LogText.escape(text, limit: 260)); kakuremichi certs list shows the names that there are")
        }
        return domain
    }
}
