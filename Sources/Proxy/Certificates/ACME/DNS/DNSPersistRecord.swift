import FoundationEssentials

/// What a TXT record `_validation-persist.NAME` says: this account at this CA may have certificates for the name. The operator
/// writes it once; no gateway needs access to the zone.
///
///     issuer.example; accounturi=https://ca.example/acct/1; policy=wildcard; persistUntil=1798761600
///
/// Source: draft-ietf-acme-dns-persist, whose text has the form of RFC 8659 §4.2.
package struct DNSPersistRecord: Hashable, Sendable, CustomStringConvertible {
    /// Lower case, without a final dot.
    package var issuer: String
    package var accountURI: String
    /// Also for `*.NAME`.
    package var isForWildcards: Bool
    package var until: Date?

    package init(issuer: String, accountURI: String, isForWildcards: Bool = false, until: Date? = nil) {
        self.issuer = issuer
        self.accountURI = accountURI
        self.isForWildcards = isForWildcards
        self.until = until
    }

    package static func name(for domain: DomainPattern) -> String { "_validation-persist." + domain.constraint }

    /// The text of the record.
    package var description: String {
        var text = "\(issuer); accounturi=\(accountURI)"
        if isForWildcards { text += "; policy=wildcard" }
        if let until { text += "; persistUntil=\(Int64(until.timeIntervalSince1970))" }
        return text
    }

    /// Reads one. Parameters that are not known are passed over; one that comes twice makes the record void.
    package init(parsing text: String) throws(DNSFault) {
        guard text.utf8.count <= Self.maximumLength else { throw DNSFault("it is longer than \(Self.maximumLength) bytes") }
        var parts = text.split(separator: ";", omittingEmptySubsequences: false)[...]
        let first = KeyFiles.trimmed(String(parts.popFirst() ?? ""))
        guard let issuer = DomainPattern.normalizedHost(first) else { throw DNSFault("it does not begin with the domain of a CA") }
        var parameters: [String: String] = [:]
        for part in parts {
            let part = KeyFiles.trimmed(String(part))
            if part.isEmpty { continue }
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map { KeyFiles.trimmed(String($0)) }
            guard pair.count == 2, !pair[0].isEmpty else { throw DNSFault("\"\(part)\" has not the form NAME=VALUE") }
            guard parameters.updateValue(pair[1], forKey: pair[0].lowercased()) == nil else { throw DNSFault("\(pair[0]) is there twice") }
        }
        guard let account = parameters["accounturi"], !account.isEmpty else { throw DNSFault("it has no accounturi") }
        self.init(issuer: issuer, accountURI: account, isForWildcards: parameters["policy"]?.lowercased() == "wildcard")
        if let until = parameters["persistuntil"] {
            guard !until.isEmpty, until.utf8.count <= 12, until.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let seconds = Double(until)
            else { throw DNSFault("persistUntil=\(until) is not a number of seconds") }
            self.until = Date(timeIntervalSince1970: seconds)
        }
    }

    private static let maximumLength = 4_096
}

/// What a CA asks for, compared with what stands in the zone.
package struct DNSPersistDemand: Hashable, Sendable {
    package var domain: DomainPattern
    /// Any of these.
    package var issuers: [String]
    package var accountURI: String

    package init(domain: DomainPattern, issuers: [String], accountURI: String) {
        self.domain = domain
        self.issuers = issuers
        self.accountURI = accountURI
    }

    package var name: String { DNSPersistRecord.name(for: domain) }

    /// What the operator is to add.
    package var record: DNSPersistRecord {
        DNSPersistRecord(issuer: issuers.first ?? "", accountURI: accountURI, isForWildcards: domain.isWildcard)
    }

    /// The line of a zone file, in strings of 255 bytes at most (RFC 1035 §3.3.14).
    package var zoneLine: String {
        var rest = Array(record.description.utf8)[...]
        var strings: [String] = []
        while !rest.isEmpty {
            strings.append("\"" + String(decoding: rest.prefix(255), as: UTF8.self) + "\"")
            rest = rest.dropFirst(255)
        }
        return "\(name). IN TXT \(strings.joined(separator: " "))"
    }

    /// Throws what to add, first, for long texts are cut, and why none of the values does, each with its reason.
    package func check(_ values: [String], now: Date) throws(DNSFault) {
        var reasons: [String] = []
        for value in values {
            do throws(DNSFault) {
                try check(try DNSPersistRecord(parsing: value), now: now)
                return
            } catch {
                reasons.append("\"\(LogText.escape(value, limit: 100))\": \(error.reason)")
            }
        }
        let what = values.isEmpty ? "there is no TXT record" : "no record matches (\(reasons.prefix(4).joined(separator: "; ")))"
        throw DNSFault("add \(zoneLine): \(what)")
    }

    private func check(_ record: DNSPersistRecord, now: Date) throws(DNSFault) {
        guard issuers.contains(record.issuer) else {
            throw DNSFault("it is for \(record.issuer), not for \(issuers.joined(separator: " or "))")
        }
        guard record.accountURI == accountURI else { throw DNSFault("it is for the account \(record.accountURI)") }
        if domain.isWildcard, !record.isForWildcards { throw DNSFault("it has no policy=wildcard") }
        if let until = record.until, until <= now {
            throw DNSFault("persistUntil was \(Int64(now.timeIntervalSince(until))) s ago")
        }
    }
}
