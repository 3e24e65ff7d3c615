import Logging

/// The accounts at the CAs, one each, all with the same key: what a session begins with.
extension AutomaticCertificates {
    /// A session that knows the account, registered if need be: once, however many orders begin together.
    func session(_ directory: ACMEURL, _ authority: ACMEAuthority) async throws -> ACMESession {
        let key = directory.text
        if let session = sessions[key], session.account != nil { return session.withoutNonces }
        if let registration = registrations[key] { return try await registration.value.withoutNonces }
        let unregistered = sessions[key] ?? unregisteredSession(directory, authority)
        guard unregistered.account == nil else {
            sessions[key] = unregistered
            return unregistered
        }
        let client = client(authority)
        let registration = Task { () throws -> ACMESession in
            var session = unregistered
            _ = try await client.perform(.account(), stage: .account, session: &session).get()
            return session
        }
        registrations[key] = registration
        defer { registrations[key] = nil }
        let registered = try await registration.value
        keep(registered)
        logger.info("ACME account", metadata: ["directory": "\(key)", "account": "\(registered.account?.text ?? "")"])
        return registered
    }

    /// For what takes no account: none is made for it.
    func anonymousSession(_ authority: ACMEAuthority) -> ACMESession {
        (sessions[authority.directory.text] ?? unregisteredSession(authority.directory, authority)).withoutNonces
    }

    private func unregisteredSession(_ directory: ACMEURL, _ authority: ACMEAuthority) -> ACMESession {
        let stored = record.accounts[directory.text].flatMap { $0.thumbprint == accountKey.thumbprint ? try? ACMEURL($0.url) : nil }
        return ACMESession(
            directory: directory, key: accountKey, account: stored, contacts: settings.email.isEmpty ? [] : ["mailto:" + settings.email],
            externalAccount: authority.externalAccount)
    }

    /// For the next order.
    func keep(_ session: ACMESession) {
        let key = session.directoryURL.text
        guard session.key.thumbprint == accountKey.thumbprint else { return }
        if session.account == nil, sessions[key]?.account != nil { return }
        sessions[key] = session
        record.accounts[key] = session.account.map { IssuanceRecord.Account(url: $0.text, thumbprint: session.key.thumbprint) }
    }

    /// They belong to a key that is used no more.
    func forgetSessions() { sessions = [:] }

    /// How the CA calls itself in CAA records, RFC 8555 §9.7.6; nil before its directory was read.
    func caaIdentity(_ directory: String) -> String? { sessions[directory]?.directory?.meta?.caaIdentities?.first }
}
