import Inet
import Noise

/// The responder's side of cookies: what is asked of a sender under load before anything expensive is computed for it.
///
/// The secret changes every two minutes. A cookie of the one before is taken too, so that every cookie is good for as long as its
/// owner uses it; older ones are not.
///
/// Source: WG §5.3, §5.4.7.
struct CookieChecker: ~Copyable {
    private var secret: SecretBytes?
    private var previousSecret: SecretBytes?
    private var secretExpiresAt = Instant(nanoseconds: 0)
    private var previousExpiresAt = Instant(nanoseconds: 0)

    /// Whether mac2 of a handshake message shows that its sender owns the address that it came from.
    mutating func isValidMAC2(of message: RawSpan, from source: SocketEndpoint, now: Instant) -> Bool {
        rotate(now: now)
        // No mac2 at all, as in every first message, is not worth a cookie's computation.
        let offset = message.byteCount - MAC.byteCount
        guard message.littleEndian64(at: offset) | message.littleEndian64(at: offset + 8) != 0 else { return false }
        return Self.cookie(for: source, secret: secret)?.isValidMAC2(message: message) ?? false
            || Self.cookie(for: source, secret: previousSecret)?.isValidMAC2(message: message) ?? false
    }

    /// Writes a cookie reply, 64 bytes and so shorter than either message that it answers, to the beginning of `reply`.
    mutating func writeReply(
        to message: RawSpan, from source: SocketEndpoint, into reply: inout MutableRawSpan, keys: MACKeys, random: RandomSource,
        now: Instant
    ) {
        rotate(now: now)
        if secret == nil {
            var fresh = SecretBytes(count: Self.secretByteCount)
            fresh.withMutableBytes { random.fill(&$0) }
            secret = consume fresh
            secretExpiresAt = now + Constants.cookieSecretLifetime
        }
        guard let cookie = Self.cookie(for: source, secret: secret),
            let mac1 = MAC(message, at: message.byteCount - MACKeys.trailerByteCount)
        else { return }
        cookie.writeReply(
            into: &reply, receiverIndex: message.littleEndian32(at: HandshakeIndex.sender), mac1: mac1, keys: keys, random: random)
    }

    private mutating func rotate(now: Instant) {
        if secret != nil, now >= secretExpiresAt {
            previousSecret = secret.take()
            previousExpiresAt = secretExpiresAt + Constants.cookieSecretLifetime
        }
        if previousSecret != nil, now >= previousExpiresAt { previousSecret = nil }
    }

    private static func cookie(for source: SocketEndpoint, secret: borrowing SecretBytes?) -> Cookie? {
        switch secret {
        case .none: return nil
        case .some(let secret):
            // Integers have no padding, so that looking at their bytes is sound.
            var work = InlineArray<3, UInt64>(repeating: 0)
            var words = work.mutableSpan
            var bytes = unsafe words.mutableBytes
            source.address.write(into: &bytes, at: 0)
            let length = source.address.byteCount
            bytes.storeBigEndian(source.port, at: length)
            return Cookie(source: bytes.bytes.extracting(0..<length + 2), secret: secret)
        }
    }

    private static let secretByteCount = 32
}
