import FoundationEssentials
import Logging
import NIOCore
import NIOPosix

/// Puts challenges of any kind where the CA looks: HTTP-01 and TLS-ALPN-01 on the ``ChallengeBoard``, the others at whoever is in charge of DNS.
package struct ChallengePresenter: ACMEPresenter {
    let board: ChallengeBoard
    /// Other processes that share the directory answer, too.
    let store: CertificateStore
    /// DNS-01, nil without a provider.
    let dns: (any ACMEPresenter)?
    /// DNS-PERSIST-01.
    let persistent: (any ACMEPresenter)?
    let logger: Logger

    package init(
        board: ChallengeBoard, store: CertificateStore, dns: (any ACMEPresenter)?, persistent: (any ACMEPresenter)?, logger: Logger
    ) {
        self.board = board
        self.store = store
        self.dns = dns
        self.persistent = persistent
        self.logger = logger
    }

    package func present(_ challenge: ACMEChallenge) async throws {
        logger.info(
            "Challenge presented", metadata: ["domain": "\(challenge.name)", "type": "\(challenge.type.rawValue)"])
        switch challenge.type {
        case .http01:
            board.set(keyAuthorization: challenge.keyAuthorization, forToken: challenge.token)
            await keep { try store.save(keyAuthorization: challenge.keyAuthorization, forToken: challenge.token) }
        case .tlsALPN01:
            let certificate = try TLSALPNCertificate.make(for: challenge, now: Date())
            board.set(context: try TLSALPNCertificate.context(certificate), of: challenge.keyAuthorization, for: challenge.name.name)
            await keep { try store.save(challengeCertificate: certificate, for: challenge.name) }
        case .dns01:
            guard let dns else { throw ACMEFault("no DNS provider is configured: write [acme.dns]") }
            try await dns.present(challenge)
        case .dnsPersist01:
            guard let persistent else { throw ACMEFault("nobody looks at the DNS") }
            try await persistent.present(challenge)
        }
    }

    package func withdraw(_ challenge: ACMEChallenge) async {
        switch challenge.type {
        case .http01:
            board.set(keyAuthorization: nil, forToken: challenge.token)
            await keep { try store.removeKeyAuthorization(forToken: challenge.token) }
        case .tlsALPN01:
            guard board.removeContext(of: challenge.keyAuthorization, for: challenge.name.name) else { return }
            await keep { try store.removeChallengeCertificate(for: challenge.name) }
        case .dns01: await dns?.withdraw(challenge)
        case .dnsPersist01: break
        }
    }

    /// A full disk is no reason not to answer from memory.
    private func keep(_ body: @escaping @Sendable () throws -> Void) async {
        do {
            try await NIOThreadPool.singleton.runIfActive(body)
        } catch {
            logger.warning("A challenge is answered from memory only", metadata: ["error": "\(error)"])
        }
    }
}
