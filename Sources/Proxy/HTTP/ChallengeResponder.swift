import NIOCore

/// What a request for the key authorization of a challenge is answered with.
package enum ChallengeAnswer: Sendable {
    case keyAuthorization(String)
    /// Another process may have it; nil if none does.
    case wait(EventLoopFuture<String?>)
    /// Nobody here knows the token: the request goes its usual way.
    case unknown
}

/// Knows the HTTP-01 challenges that are under way. Asked on event loops.
///
/// Source: RFC 8555 §8.3.
package protocol ChallengeResponder: Sendable {
    /// - Parameters:
    ///   - token: 22 to 128 characters of base64url.
    ///   - host: normalised.
    ///   - isRelayed: another gateway asks; it is not asked in turn.
    func answer(token: String, host: String, isRelayed: Bool, on loop: any EventLoop) -> ChallengeAnswer
}

extension CheckedRequest {
    /// The token, if this asks for a key authorization.
    var challengeToken: String? {
        guard method == .get || method == .head, case .origin(let span) = target else { return nil }
        return section.withBytes(span) { bytes in
            guard bytes.starts(with: Self.challengePath) else { return nil }
            let token = String(decoding: bytes.dropFirst(Self.challengePath.count), as: UTF8.self)
            return CertificateStore.isToken(token) ? token : nil
        }
    }

    /// Another gateway of ours asks on behalf of a CA.
    var isRelayedChallenge: Bool { section.value(of: Self.relayField) != nil }

    private static let challengePath = Array("/.well-known/acme-challenge/".utf8)
    static let relayField: StaticString = "kakuremichi-challenge-relay"
}

extension ErrorPage {
    /// RFC 8555 §8.3: the key authorization and nothing else.
    static func keyAuthorization(_ text: String) -> ErrorPage {
        var page = ErrorPage(status: 200, text: text)
        page.isVerbatim = true
        return page
    }
}
