import FoundationEssentials

/// A certificate that is served.
package struct WatchedCertificate: Sendable, Equatable {
    /// A domain or a file.
    package var name: String
    package var notBefore: Date
    package var notAfter: Date
    /// Renewal is late by a tenth of the lifetime.
    package var isOverdue: Bool
    package var lastFailure: String?

    package init(name: String, notBefore: Date, notAfter: Date, isOverdue: Bool = false, lastFailure: String? = nil) {
        self.name = name
        self.notBefore = notBefore
        self.notAfter = notAfter
        self.isOverdue = isOverdue
        self.lastFailure = lastFailure
    }
}

/// A name that should have a certificate.
package struct MissingCertificate: Sendable, Equatable {
    package var name: String
    package var since: Date
    package var lastFailure: String?

    package init(name: String, since: Date, lastFailure: String? = nil) {
        self.name = name
        self.since = since
        self.lastFailure = lastFailure
    }
}

/// Decides what is told of certificates, and remembers what was.
///
///     of one certificate (name and end):  good ─▶ 1/4 left ─▶ 1/8 ─▶ 1/24 ─▶ expired      once each, only the most urgent of
///                                           └───▶ renewal overdue                         those that are reached together
///     of one name:  no certificate ─▶ for an hour: missing
///     what was told of, replaced by one that is good ─▶ recovered
///
/// What was told is remembered by certificate and kept on disk by the owner, so that no restart tells it again. What a clock that
/// was more than an hour ahead has told is taken back, and told again in its time. It does not send, and does not look at certificates itself.
package struct ExpiryWatch: Codable, Equatable, Sendable {
    /// What was told of one certificate.
    private struct Told: Codable, Equatable, Sendable {
        var notAfter: Date
        var level: CertificateAlert.Level?
        var isOverdue = false
    }

    private struct Entry: Codable, Equatable, Sendable {
        var told: [Told] = []
        var missingSince: Date?
        var isMissingTold = false
        /// Something was told that a good certificate takes back.
        var isRecoveryDue = false
        /// Since when the name is known to nobody.
        var goneSince: Date?

        var isWorthKeeping: Bool { !told.isEmpty || missingSince != nil || isRecoveryDue }
    }

    /// Only names of which something was told, or that have no certificate.
    private var entries: [String: Entry] = [:]
    /// There was no room for something at the last look: nothing will be told of it. Not kept on disk.
    package private(set) var isIncomplete = false

    private enum CodingKeys: CodingKey { case entries }

    package init() {}

    /// How many names are remembered.
    package var count: Int { entries.count }

    /// Call it every minute or so.
    /// - Parameters:
    ///   - certificates: all that are served. A name may have several.
    ///   - missing: names that have none, none of them in `certificates`.
    /// - Returns: what is to be sent now, and never again.
    package mutating func check(_ certificates: [WatchedCertificate], missing: [MissingCertificate], now: Date) -> [CertificateAlert] {
        var alerts: [CertificateAlert] = []
        isIncomplete = false
        let byName = Dictionary(grouping: certificates, by: \.name)
        var seen = Set<String>()
        for certificate in certificates where seen.insert(certificate.name).inserted {
            check(certificate.name, byName[certificate.name] ?? [], now: now, into: &alerts)
        }
        for name in missing where byName[name.name] == nil && seen.insert(name.name).inserted { check(name, now: now, into: &alerts) }
        forget(except: seen, now: now)
        return alerts
    }

    private mutating func check(_ name: String, _ certificates: [WatchedCertificate], now: Date, into alerts: inout [CertificateAlert]) {
        var entry = entries[name] ?? Entry()
        var found: [CertificateAlert] = []
        var told: [Told] = []
        var ends = Set<Date>()
        for certificate in certificates.prefix(Self.maximumPerName) where ends.insert(certificate.notAfter).inserted {
            var memory = entry.told.first { $0.notAfter == certificate.notAfter } ?? Told(notAfter: certificate.notAfter)
            if Self.takeBack(certificate, &memory, now: now) { entry.isRecoveryDue = true }
            if let alert = Self.alert(certificate, &memory, now: now) { found.append(alert) }
            if memory.level != nil || memory.isOverdue { told.append(memory) }
        }
        if entry.told.contains(where: { !ends.contains($0.notAfter) }) { entry.isRecoveryDue = true }
        // A replacement that is no good either takes nothing back.
        if entry.isRecoveryDue, told.isEmpty, let end = ends.max() {
            entry.isRecoveryDue = false
            found.append(CertificateAlert(.recovered, name: name, notAfter: end, remaining: end.timeIntervalSince(now)))
        }
        (entry.goneSince, entry.missingSince, entry.isMissingTold, entry.told) = (nil, nil, false, told)
        if certificates.count > Self.maximumPerName { isIncomplete = true }
        if entry.isWorthKeeping { makeRoom(for: name) }
        if keep(entry, for: name) { alerts += found }
    }

    /// A clock that was far ahead has told what is not so. A small correction is no reason to tell a level twice.
    private static func takeBack(_ certificate: WatchedCertificate, _ told: inout Told, now: Date) -> Bool {
        let lifetime = certificate.notAfter.timeIntervalSince(certificate.notBefore)
        let remaining = certificate.notAfter.timeIntervalSince(now)
        guard let level = told.level else { return false }
        if let atMost = Self.level(remaining: remaining - clockTolerance, lifetime: lifetime), level <= atMost { return false }
        told.level = Self.level(remaining: remaining, lifetime: lifetime)
        return true
    }

    private static func alert(_ certificate: WatchedCertificate, _ told: inout Told, now: Date) -> CertificateAlert? {
        let remaining = certificate.notAfter.timeIntervalSince(now)
        func make(_ event: CertificateAlert.Event, _ level: CertificateAlert.Level?) -> CertificateAlert {
            CertificateAlert(
                event, name: certificate.name, level: level, notAfter: certificate.notAfter, remaining: remaining,
                isOverdue: certificate.isOverdue, lastFailure: certificate.lastFailure)
        }
        let lifetime = certificate.notAfter.timeIntervalSince(certificate.notBefore)
        if let level = level(remaining: remaining, lifetime: lifetime), told.level.map({ $0 < level }) ?? true {
            told.level = level
            // Said in the same breath.
            if certificate.isOverdue { told.isOverdue = true }
            return make(level == .expired ? .expired : .expiring, level)
        }
        guard certificate.isOverdue, !told.isOverdue else { return nil }
        told.isOverdue = true
        // That one has expired says more.
        return told.level == .expired ? nil : make(.renewalOverdue, told.level)
    }

    private static func level(remaining: TimeInterval, lifetime: TimeInterval) -> CertificateAlert.Level? {
        if remaining <= 0 { return .expired }
        if remaining <= lifetime / 24 { return .twentyFourth }
        if remaining <= lifetime / 8 { return .eighth }
        return remaining <= lifetime / 4 ? .quarter : nil
    }

    private mutating func check(_ missing: MissingCertificate, now: Date, into alerts: inout [CertificateAlert]) {
        var entry = entries[missing.name] ?? Entry()
        entry.goneSince = nil
        // A restart does not begin the hour again. A moment ahead of now is from a clock that was wrong.
        let since = min(missing.since, now)
        entry.missingSince = min(entry.missingSince.map { $0 <= now ? $0 : since } ?? since, since)
        let isDue = !entry.isMissingTold && now.timeIntervalSince(entry.missingSince ?? now) >= Self.missingLimit
        if isDue { (entry.isMissingTold, entry.isRecoveryDue) = (true, true) }
        guard keep(entry, for: missing.name), isDue else { return }
        alerts.append(CertificateAlert(.missing, name: missing.name, lastFailure: missing.lastFailure))
    }

    /// - Returns: false if there is no room, so that nothing is told either: it would be told each minute.
    private mutating func keep(_ entry: Entry, for name: String) -> Bool {
        guard entry.isWorthKeeping else {
            entries[name] = nil
            return true
        }
        guard entries[name] != nil || entries.count < Self.maximumNames else {
            isIncomplete = true
            return false
        }
        entries[name] = entry
        return true
    }

    /// That a certificate ends says more than that there is none.
    private mutating func makeRoom(for name: String) {
        guard entries.count >= Self.maximumNames, entries[name] == nil,
            let other = entries.first(where: { $0.value.missingSince != nil && $0.value.told.isEmpty })
        else { return }
        entries[other.key] = nil
        isIncomplete = true
    }

    /// Names that are gone are forgotten a day later: a start may come before all of them are known.
    private mutating func forget(except names: Set<String>, now: Date) {
        for (name, entry) in entries where !names.contains(name) {
            guard let gone = entry.goneSince, gone <= now else {
                entries[name]?.goneSince = now
                continue
            }
            if now.timeIntervalSince(gone) >= Self.goneLimit { entries[name] = nil }
        }
    }

    package static let maximumNames = 4_096
    /// Certificates of one name that are looked at.
    static let maximumPerName = 16
    static let clockTolerance: TimeInterval = 3_600
    package static let missingLimit: TimeInterval = 3_600
    package static let goneLimit: TimeInterval = 86_400
}
