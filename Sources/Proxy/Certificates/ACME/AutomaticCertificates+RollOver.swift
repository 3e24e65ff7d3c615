import Crypto
import FoundationEssentials
import Logging

/// A new key for the account, RFC 8555 §7.3.5. The key that is to come is in a file of its own before any CA hears of it, and is neither
/// lost nor taken for the account's before it is known which key the CAs have.
extension AutomaticCertificates {
    /// Changes the key at every CA that knows the account.
    /// - Returns: directories at which it could not be changed; a new account is made there at the next order.
    package func rollOver() async throws -> [String] {
        guard !isRollingOver, running.isEmpty, registrations.isEmpty else {
            throw AdminFault(error: "certificates are being ordered with the present key; try it again in a minute")
        }
        guard !store.hasNextAccountKey else {
            throw AdminFault(
                error: "an earlier change is not over: a CA could not be asked which key it has; restart the gateway when it can")
        }
        isRollingOver = true
        defer {
            isRollingOver = false
            advance()
        }
        let new = P256.Signing.PrivateKey()
        try store.save(nextAccountKey: new)
        var outcomes: [String: Outcome] = [:]
        for authority in settings.authorities {
            let directory = authority.directory.text
            guard let known = record.accounts[directory], known.thumbprint == thumbprint else { continue }
            var session = try await session(authority.directory, authority)
            switch await client(authority).perform(.keyChange(ACMEKey(new)), stage: .keyChange, session: &session) {
            case .success: outcomes[directory] = .changed(url: known.url)
            case .failure(let failure):
                logger.error("The account's key is not changed", metadata: ["directory": "\(directory)", "reason": "\(failure)"])
                // The answer may be what was lost.
                outcomes[directory] = await ask(authority, url: known.url, key: ACMEKey(new))
            }
        }
        return try settle(new, outcomes)
    }

    /// What a process that died, or a CA that did not answer, has left behind.
    func finishRollOver() async {
        guard let new = (try? store.nextAccountKey()) ?? nil else { return }
        var outcomes: [String: Outcome] = [:]
        for authority in settings.authorities {
            guard let known = record.accounts[authority.directory.text] else { continue }
            outcomes[authority.directory.text] = await ask(authority, url: known.url, key: ACMEKey(new))
        }
        do {
            _ = try settle(new, outcomes)
        } catch {
            logger.warning("A change of the account's key was interrupted", metadata: ["now": "\(error)"])
        }
    }

    private enum Outcome {
        case changed(url: String)
        case unchanged, unknown

        var isChanged: Bool { if case .changed = self { true } else { false } }
        var isUnknown: Bool { if case .unknown = self { true } else { false } }
    }

    /// Whether the CA takes this key for the account.
    private func ask(_ authority: ACMEAuthority, url: String, key: ACMEKey) async -> Outcome {
        guard let account = try? ACMEURL(url) else { return .unchanged }
        var session = ACMESession(directory: authority.directory, key: key, account: account)
        switch await client(authority).perform(.account(), stage: .account, session: &session) {
        case .success: return .changed(url: url)
        case .failure(let failure): return failure.kind == .refused ? .unchanged : .unknown
        }
    }

    private func settle(_ new: P256.Signing.PrivateKey, _ outcomes: [String: Outcome]) throws -> [String] {
        let failed = outcomes.filter { !$0.value.isChanged }.keys.sorted()
        guard outcomes.isEmpty || outcomes.contains(where: { $0.value.isChanged }) else {
            if outcomes.contains(where: { $0.value.isUnknown }) {
                throw AdminFault(
                    error:
                        "it is not known which key \(failed.joined(separator: ", ")) has: the new one is kept, and asked about at the next start"
                )
            }
            try store.discardNextAccountKey()
            throw AdminFault(error: "no CA has changed the key: \(failed.joined(separator: ", ")); the old one stays in use")
        }
        try store.save(accountKey: new)
        accountKey = ACMEKey(new)
        record.accounts = [:]
        for (directory, outcome) in outcomes {
            if case .changed(let url) = outcome { record.accounts[directory] = IssuanceRecord.Account(url: url, thumbprint: thumbprint) }
        }
        forgetSessions()
        writeRecord()
        try store.discardNextAccountKey()
        logger.notice(
            "The ACME account's key was changed; gateways that list its thumbprint need the new one",
            metadata: ["thumbprint": "\(thumbprint)"])
        return failed
    }
}
