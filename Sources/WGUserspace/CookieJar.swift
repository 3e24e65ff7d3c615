import Inet
import Noise

/// The sender's side of cookies, for one peer: what it needs to open a cookie reply, and the cookie for mac2.
///
/// Source: WG §5.3, §5.4.7, §6.6.
struct CookieJar {
    /// The mac1 of the last handshake message sent; a reply must answer that one. `nil` when it was answered.
    private var lastMAC1: MAC?
    private var cookie: Cookie?
    private var expiresAt = Instant(nanoseconds: 0)

    /// Whether messages have a mac2 now.
    func hasCookie(now: Instant) -> Bool { cookie != nil && now < expiresAt }

    /// Sets mac2 of a message that is about to be sent if there is a fresh cookie, and remembers its mac1.
    mutating func prepare(_ message: inout MutableRawSpan, byteCount: Int, now: Instant) {
        lastMAC1 = MAC(message.bytes, at: byteCount - MACKeys.trailerByteCount)
        guard let cookie, hasCookie(now: now) else { return }
        cookie.writeMAC2(into: &message, byteCount: byteCount)
    }

    /// Takes a cookie reply.
    ///
    /// - Parameter publicKey: the peer's. Its keys are derived for each reply: replies are rare, and kept keys cost a kilobyte a peer.
    /// - Returns: `false` if it answers nothing we sent, or is forged.
    mutating func receive(_ reply: RawSpan, from publicKey: PublicKey, now: Instant) -> Bool {
        guard let mac1 = lastMAC1, let cookie = Cookie(reply: reply, mac1: mac1, keys: MACKeys(publicKey: publicKey)) else {
            return false
        }
        lastMAC1 = nil
        self.cookie = cookie
        expiresAt = now + Constants.cookieLifetime
        return true
    }
}
