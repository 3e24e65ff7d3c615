import FoundationEssentials
import Inet

/// One account at one CA, and one signed request at a time:
///
///     begin ─▶ directory? ─▶ nonce? ─▶ account? ─▶ the request ─▶ answered | failed
///              └ each only if it is missing; badNonce, 5xx and lost connections come back to here, a bounded number of times
///
/// What comes out is what its owner has to do. It follows no redirect, does not look into answers that are successes (its
/// directory and its account apart), and does not begin again when the account is gone: what was asked for went with it.
///
/// Source: RFC 8555 §6.5 (nonces), §7.1.1, §7.2, §7.3.
package struct ACMESession: Sendable {
    package let directoryURL: ACMEURL
    package private(set) var key: ACMEKey
    /// The account's URL (`kid`): to be stored with the key.
    package private(set) var account: ACMEURL?
    package private(set) var directory: ACMEDirectory?
    private let contacts: [String]
    private let externalAccount: ExternalAccount?
    /// Unused, the latest last.
    private var nonces: [String] = []
    private var pending: Pending?

    /// What is asked of the CA, before it is signed.
    package enum Intent: Sendable {
        case newOrder(ACMENewOrder)
        case post(ACMEURL, payload: [UInt8])
        /// POST-as-GET (RFC 8555 §6.3).
        case read(ACMEURL, accept: String = "application/json")
        /// A change of the account (RFC 8555 §7.3.2, §7.3.6); nil reads it, which makes sure that it is there.
        case account(change: [UInt8]? = nil)
        /// RFC 8555 §7.3.5.
        case keyChange(ACMEKey)
        /// RFC 8555 §7.6, by the account, or by the certificate's own key.
        case revoke(certificate: [UInt8], reason: Int?, key: ACMEKey?)

        /// What a certificate's window is (RFC 9773 §4.1): the one request that is not signed.
        case renewalInfo(certificateID: String)

        var needsAccount: Bool {
            switch self {
            case .revoke(_, _, .some), .renewalInfo: false
            case .newOrder, .post, .read, .account, .keyChange, .revoke: true
            }
        }
    }

    package enum Progress: Equatable, Sendable {
        case send(ACMERequest)
        case wait(until: Instant)
        case answered(ACMEResponse)
        case failed(ACMEFailure)
    }

    /// - Parameters:
    ///   - account: the URL under which `key` is known there already; without it the key is registered (which finds an account that exists).
    ///   - contacts: `mailto:` URLs.
    package init(
        directory: ACMEURL, key: ACMEKey, account: ACMEURL? = nil, contacts: [String] = [], externalAccount: ExternalAccount? = nil
    ) {
        directoryURL = directory
        self.key = key
        self.account = account
        self.contacts = contacts
        self.externalAccount = externalAccount
    }

    /// For an order beside others of the same account: a nonce is used once.
    package var withoutNonces: ACMESession {
        var session = self
        session.nonces = []
        return session
    }

    /// - Parameter stage: how a failure of this request is called.
    package mutating func begin(_ intent: Intent, stage: ACMEStage, now: ACMEMoment) -> Progress {
        pending = Pending(intent: intent, stage: stage)
        return advance()
    }

    package mutating func receive(_ response: ACMEResponse, now: ACMEMoment) -> Progress {
        guard let pending, pending.pausedUntil == nil else { return Self.unexpected("an answer") }
        keepNonce(of: response)
        if response.isSuccess { return receiveSuccess(response, awaited: pending.awaiting) }

        let retryAfter = ACMEDates.retryAfter(response.field("Retry-After"), now: now.date)
        guard response.status >= 400 else {
            return fail(.refused, "HTTP \(response.status), which is not followed", response, retryAfter)
        }
        let problem = ACMEProblem(response)
        if problem.type == "badNonce" {
            // Those in stock are as old or older.
            nonces.removeAll()
            keepNonce(of: response)
            self.pending?.badNonces += 1
            guard pending.badNonces < Self.maximumBadNonces else {
                return fail(.unavailable, "\(Self.maximumBadNonces) nonces in a row were refused", response, retryAfter)
            }
            return advance()
        }
        if response.status == 429 || problem.isKind("rateLimited") {
            return fail(.rateLimited, "a limit of the CA is reached", response, retryAfter)
        }
        if response.status >= 500 { return pause("the CA has a fault", response, until: now.pollTime(response, attempt: 1), retryAfter) }
        if problem.type == "accountDoesNotExist" { account = nil }
        return fail(.refused, "the CA refuses", response, retryAfter)
    }

    /// The request got no answer, or one that is no HTTP or too long. `reason` may quote it.
    package mutating func receiveFailure(_ reason: String, now: ACMEMoment) -> Progress {
        guard let pending, pending.pausedUntil == nil else { return Self.unexpected("a failure") }
        return pause("no answer: \(reason)", nil, until: now.instant + .seconds(2 << pending.faults), nil)
    }

    package mutating func handleTimeout(now: ACMEMoment) -> Progress {
        guard let until = pending?.pausedUntil else { return Self.unexpected("a timeout") }
        return now.instant < until ? .wait(until: until) : advance()
    }

    /// When `handleTimeout` is due.
    package var nextDeadline: Instant? { pending?.pausedUntil }

    /// The next request for what is missing.
    private mutating func advance() -> Progress {
        let progress = nextRequest()
        // A CA by https leads nowhere else: not to services of this machine.
        if case .send(let request) = progress, directoryURL.isSecure, !request.url.isSecure {
            return fail(.refused, "the CA names \(request.url), which is not https", nil, nil)
        }
        return progress
    }

    private mutating func nextRequest() -> Progress {
        guard let intent = pending?.intent else { return Self.unexpected("a step") }
        pending?.pausedUntil = nil
        guard let directory else {
            pending?.awaiting = .directory
            return .send(ACMERequest(method: .get, url: directoryURL))
        }
        if case .renewalInfo(let certificateID) = intent { return getRenewalInfo(directory, certificateID) }
        guard let nonce = nonces.popLast() else {
            pending?.awaiting = .nonce
            return .send(ACMERequest(method: .head, url: directory.newNonce))
        }
        let isRegistration = intent.needsAccount && account == nil
        pending?.awaiting = isRegistration ? .account : .answer
        do throws(ACMEFault) {
            return .send(
                isRegistration
                    ? try registration(directory.newAccount, nonce: nonce) : try request(intent, directory: directory, nonce: nonce))
        } catch {
            return fail(.refused, error.reason, nil, nil)
        }
    }

    private mutating func getRenewalInfo(_ directory: ACMEDirectory, _ certificateID: String) -> Progress {
        pending?.awaiting = .answer
        do throws(ACMEFault) {
            guard let renewalInfo = directory.renewalInfo else { throw ACMEFault("this CA has no renewalInfo") }
            return .send(ACMERequest(method: .get, url: try renewalInfo.appending(certificateID)))
        } catch {
            return fail(.refused, error.reason, nil, nil)
        }
    }

    private mutating func receiveSuccess(_ response: ACMEResponse, awaited: Pending.Awaiting) -> Progress {
        do throws(ACMEFault) {
            switch awaited {
            case .directory: directory = try ACMEDirectory.read(response.body)
            case .nonce:
                guard !nonces.isEmpty else { throw ACMEFault("newNonce gave no usable Replay-Nonce") }
            case .account:
                let status = try ACMEAccount.read(response.body).status
                guard status == .valid else { throw ACMEFault("the account is \(status.rawValue)") }
                guard let location = response.field("Location") else { throw ACMEFault("newAccount gave no Location") }
                account = try directory?.newAccount.resolving(location)
            case .answer:
                if case .keyChange(let new) = pending?.intent { key = new }
                pending = nil
                return .answered(response)
            }
        } catch {
            return fail(.refused, error.reason, nil, nil)
        }
        return advance()
    }

    /// RFC 8555 §7.3, §7.3.4. Using this program with a CA is taken as agreement to its terms.
    private func registration(_ url: ACMEURL, nonce: String) throws(ACMEFault) -> ACMERequest {
        var payload = #"{"termsOfServiceAgreed":true"#
        if !contacts.isEmpty { payload += #","contact":["# + contacts.map(JWS.quoted).joined(separator: ",") + "]" }
        if let externalAccount {
            payload += #","externalAccountBinding":"# + String(decoding: externalAccount.binding(for: key, url: url.text), as: UTF8.self)
        } else if directory?.meta?.externalAccountRequired == true {
            throw ACMEFault("this CA wants an external account (a key identifier and an HMAC key), and none is configured")
        }
        return ACMERequest(
            method: .post, url: url,
            body: try JWS.sign(Array((payload + "}").utf8), url: url.text, nonce: nonce, key: key, as: .jwk))
    }

    private func request(_ intent: Intent, directory: ACMEDirectory, nonce: String) throws(ACMEFault) -> ACMERequest {
        let url: ACMEURL
        var payload: [UInt8]?
        var accept = "application/json"
        var signer = JWS.Signer.kid(account?.text ?? "")
        var signingKey = key
        switch intent {
        case .newOrder(let order): (url, payload) = (directory.newOrder, try order.payload(directory))
        case .post(let target, let body): (url, payload) = (target, body)
        case .read(let target, let type): (url, accept) = (target, type)
        case .renewalInfo: throw ACMEFault("renewal information is not signed")
        case .account(let change):
            guard let account else { throw ACMEFault("there is no account") }
            (url, payload) = (account, change)
        case .keyChange(let new):
            guard let account, let keyChange = directory.keyChange else { throw ACMEFault("this CA has no keyChange") }
            url = keyChange
            let inner = #"{"account":\#(JWS.quoted(account.text)),"oldKey":\#(key.jwk)}"#
            payload = try JWS.sign(Array(inner.utf8), url: url.text, nonce: nil, key: new, as: .jwk)
        case .revoke(let certificate, let reason, let certificateKey):
            guard let revokeCert = directory.revokeCert else { throw ACMEFault("this CA has no revokeCert") }
            url = revokeCert
            let code = reason.map { #","reason":\#($0)"# } ?? ""
            payload = Array(#"{"certificate":"\#(Base64URL.encode(certificate))"\#(code)}"#.utf8)
            if let certificateKey { (signer, signingKey) = (.jwk, certificateKey) }
        }
        return ACMERequest(
            method: .post, url: url, accept: accept,
            body: try JWS.sign(payload, url: url.text, nonce: nonce, key: signingKey, as: signer))
    }

    /// RFC 8555 §6.5.1: what is not base64url is ignored.
    private mutating func keepNonce(of response: ACMEResponse) {
        guard let nonce = response.field("Replay-Nonce"), !nonce.isEmpty, nonce.utf8.count <= Self.maximumNonceLength,
            Base64URL.isAlphabetic(nonce), !nonces.contains(nonce)
        else { return }
        nonces.append(nonce)
        if nonces.count > Self.maximumNonces { nonces.removeFirst() }
    }

    private mutating func pause(_ reason: String, _ response: ACMEResponse?, until: Instant, _ retryAfter: Date?) -> Progress {
        pending?.faults += 1
        guard let faults = pending?.faults, faults <= Self.maximumFaults else { return fail(.unavailable, reason, response, retryAfter) }
        pending?.pausedUntil = until
        return .wait(until: until)
    }

    private mutating func fail(_ kind: ACMEFailure.Kind, _ reason: String, _ response: ACMEResponse?, _ retryAfter: Date?) -> Progress {
        let stage: ACMEStage? =
            switch pending?.awaiting {
            case .directory: .directory
            case .nonce: .nonce
            case .account: .account
            case .answer, nil: pending?.stage
            }
        pending = nil
        // Its resources may have moved.
        if response?.status == 404 || kind == .unavailable { directory = nil }
        return .failed(ACMEFailure(stage ?? .directory, kind, reason, problem: response.map { ACMEProblem($0) }, retryAfter: retryAfter))
    }

    /// A call that its owner must not make; nothing that a CA sends leads here.
    private static func unexpected(_ what: String) -> Progress { .failed(ACMEFailure(.directory, .refused, "\(what) without a request")) }

    private struct Pending: Sendable {
        enum Awaiting: Sendable { case directory, nonce, account, answer }
        var intent: Intent
        var stage: ACMEStage
        /// What the latest request was for.
        var awaiting = Awaiting.directory
        /// Nil while an answer is awaited.
        var pausedUntil: Instant?
        var badNonces = 0
        var faults = 0
    }

    /// A CA that refuses every second nonce gets through this once in a million requests.
    static let maximumBadNonces = 20
    /// 5xx and lost connections in one request.
    static let maximumFaults = 3
    static let maximumNonces = 8
    static let maximumNonceLength = 512
}
