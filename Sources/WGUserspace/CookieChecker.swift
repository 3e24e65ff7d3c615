import Inet
import Noise

/// The responder's side of cookies: what is asked of a sender under load before anything expensive is computed for it.
///
/// The secret changes every two minutes. A cookie of the one before is taken too, so that every cookie is good for as long as its
/// owner uses it; older ones are not. The secret of a span of two minutes is a root and the span's number, so that loops which share a
/// root have the same secrets without a word between them.
///
/// Source: WG §5.3, §5.4.7.
struct CookieChecker {
    private var root: CookieRoot?

    /// - Parameter root: `nil`: one is drawn when the first cookie is made.
    init(root: CookieRoot?) { self.root = root }

    /// Whether mac2 of a handshake message shows that its sender owns the address that it came from.
    func isValidMAC2(of message: RawSpan, from source: SocketEndpoint, now: Instant) -> Bool {
        guard let root else { return false }
        // No mac2 at all, as in every first message, is not worth a cookie's computation.
        let offset = message.byteCount - MAC.byteCount
        guard message.littleEndian64(at: offset) | message.littleEndian64(at: offset + 8) != 0 else { return false }
        let span = root.span(at: now)
        return root.cookie(for: source, span: span).isValidMAC2(message: message)
            || span > 0 && root.cookie(for: source, span: span - 1).isValidMAC2(message: message)
    }

    /// Writes a cookie reply, 64 bytes and so shorter than either message that it answers, to the beginning of `reply`.
    mutating func writeReply(
        to message: RawSpan, from source: SocketEndpoint, into reply: inout MutableRawSpan, keys: MACKeys, random: RandomSource,
        now: Instant
    ) {
        let root = root ?? CookieRoot(random: random, now: now)
        self.root = root
        guard let mac1 = MAC(message, at: message.byteCount - MACKeys.trailerByteCount) else { return }
        root.cookie(for: source, span: root.span(at: now)).writeReply(
            into: &reply, receiverIndex: message.littleEndian32(at: HandshakeIndex.sender), mac1: mac1, keys: keys, random: random)
    }
}

/// What cookies are made from: random bytes, and the moment from which spans of two minutes are counted. May go from thread to thread.
public final class CookieRoot: Sendable {
    private let secret: SecretBytes
    private let begin: Instant

    public init(random: RandomSource, now: Instant) {
        var secret = SecretBytes(count: Self.byteCount)
        secret.withMutableBytes { random.fill(&$0) }
        self.secret = secret
        begin = now
    }

    /// The number of the span of time that `now` lies in.
    func span(at now: Instant) -> UInt64 {
        now < begin ? 0 : (now.nanoseconds - begin.nanoseconds) / Constants.cookieSecretLifetime.nanoseconds
    }

    func cookie(for source: SocketEndpoint, span: UInt64) -> Cookie {
        // Integers have no padding, so that looking at their bytes is sound.
        var work = InlineArray<4, UInt64>(repeating: 0)
        var words = work.mutableSpan
        var bytes = unsafe words.mutableBytes
        source.address.write(into: &bytes, at: 0)
        let length = source.address.byteCount
        bytes.storeBigEndian(source.port, at: length)
        bytes.storeLittleEndian(span, at: length + 2)
        return Cookie(source: bytes.bytes.extracting(0..<length + 10), secret: secret)
    }

    private static let byteCount = 32
}
