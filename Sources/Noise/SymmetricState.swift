import Inet

/// Noise's symmetric state for 25519, ChaChaPoly and BLAKE2s: the chaining key, the hash, and the current cipher key.
/// Both WireGuard handshakes are written in its operations.
///
/// Source: Noise §5.2, WG §5.4.
package struct SymmetricState: ~Copyable, Sendable {
    /// The handshake hash `h`. Integers have no padding, so that looking at their bytes, which is `unsafe`, is sound.
    package private(set) var hash: Digest

    /// Chaining key, cipher key, and a place for the third output of the derivation.
    private var secrets: SecretBytes
    private var derivation = KeyDerivation()
    private var hasher = BLAKE2s()
    private var nonce: UInt64 = 0

    private init(chainingKey: Digest, hash: Digest) {
        self.hash = hash
        secrets = SecretBytes(count: Layout.byteCount)
        secrets.withMutableBytes { $0.copy(unsafe chainingKey.words.span.bytes, at: Layout.chainingKey.lowerBound) }
    }

    /// The state that every WireGuard handshake starts from; the responder's static key is mixed in next.
    package static func wireGuard() -> SymmetricState {
        SymmetricState(chainingKey: wireGuardStart.chainingKey, hash: wireGuardStart.hash)
    }

    /// Another value in the same state.
    package func copy() -> SymmetricState {
        var other = SymmetricState(chainingKey: Digest(), hash: hash)
        other.secrets = secrets.copy()
        other.nonce = nonce
        return other
    }

    package mutating func mixHash(_ data: RawSpan) { hash = hasher.hash(unsafe hash.words.span.bytes, data) }

    package mutating func mixHash(_ key: PublicKey) { mixHash(unsafe key.words.span.bytes) }

    /// The first output only: WireGuard's `C = KDF1(C, input)` for the ephemeral keys, after which nothing is encrypted.
    package mutating func mixChainingKey(_ input: RawSpan) { mix(input, outputs: 1) }

    package mutating func mixChainingKey(_ key: PublicKey) { mixChainingKey(unsafe key.words.span.bytes) }

    package mutating func mixKey(_ input: RawSpan) { mix(input, outputs: 2) }

    package mutating func mixKey(_ input: borrowing SecretBytes) { input.withBytes { mixKey($0) } }

    package mutating func mixKeyAndHash(_ input: borrowing SecretBytes) {
        input.withBytes { mix($0, outputs: 3) }
        // `secrets` lives as long as `self`, which is accessed exclusively.
        var bytes = unsafe MutableRawSpan(_unsafeStart: secrets.base, byteCount: secrets.count)
        mixHash(bytes.bytes.extracting(Layout.cipherKey))
        bytes.copy(unsafe RawSpan(_unsafeStart: secrets.base + Layout.third.lowerBound, byteCount: 32), at: Layout.cipherKey.lowerBound)
        bytes.zero(Layout.third)
    }

    /// Seals `plaintext` of `message` in place, writes the tag behind it, and mixes both into the hash.
    package mutating func encryptAndHash(_ message: inout MutableRawSpan, plaintext: Range<Int>) {
        ChaChaPoly.seal(
            &message, plaintext: plaintext, counter: nonce, key: secrets, at: Layout.cipherKey.lowerBound,
            additionalData: unsafe hash.words.span.bytes)
        nonce &+= 1
        mixHash(message.bytes.extracting(plaintext.lowerBound..<plaintext.upperBound + ChaChaPoly.tagByteCount))
    }

    /// Opens `ciphertext` (tag included) of `message` in place and mixes it into the hash.
    ///
    /// - Throws: ``HandshakeError/authenticationFailed``; the state is then as before.
    package mutating func decryptAndHash(_ message: inout MutableRawSpan, ciphertext: Range<Int>) throws(HandshakeError) {
        let next = hasher.hash(unsafe hash.words.span.bytes, message.bytes.extracting(ciphertext))
        guard
            ChaChaPoly.open(
                &message, ciphertext: ciphertext, counter: nonce, key: secrets, at: Layout.cipherKey.lowerBound,
                additionalData: unsafe hash.words.span.bytes)
        else { throw .authenticationFailed }
        nonce &+= 1
        hash = next
    }

    /// Opens all of `message` in place.
    package mutating func decryptAndHash(_ message: inout SecretBytes) throws(HandshakeError) {
        // `message` lives during the call and is accessed exclusively.
        var bytes = unsafe MutableRawSpan(_unsafeStart: message.base, byteCount: message.count)
        try decryptAndHash(&bytes, ciphertext: 0..<message.count)
    }

    /// The two transport keys: the first output seals what the initiator sends.
    package consuming func split(isInitiator: Bool) -> TransportKeys {
        var keys = SecretBytes(count: TransportKeys.byteCount)
        derivation.extract(key: unsafe RawSpan(_unsafeStart: secrets.base, byteCount: 32), input: RawSpan())
        derivation.expand(2, into: &keys)
        return TransportKeys(keys, isInitiator: isInitiator)
    }

    private mutating func mix(_ input: RawSpan, outputs: Int) {
        // `secrets` lives as long as `self`, which is accessed exclusively; it is overwritten only after it was read.
        derivation.extract(key: unsafe RawSpan(_unsafeStart: secrets.base, byteCount: 32), input: input)
        derivation.expand(outputs, into: &secrets)
        nonce = 0
    }

    /// For tests of every step.
    package func withChainingKey<Result>(_ body: (RawSpan) -> Result) -> Result {
        secrets.withBytes { body($0.extracting(Layout.chainingKey)) }
    }

    /// For tests of every step.
    package func withCipherKey<Result>(_ body: (RawSpan) -> Result) -> Result {
        secrets.withBytes { body($0.extracting(Layout.cipherKey)) }
    }

    /// For tests: what no operation may leave a secret in.
    package func withSpare<Result>(_ body: (RawSpan) -> Result) -> Result {
        secrets.withBytes { body($0.extracting(Layout.third)) }
    }

    private enum Layout {
        static let chainingKey = 0..<32
        static let cipherKey = 32..<64
        static let third = 64..<96
        static let byteCount = 96
    }

    package static let construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
    package static let identifier = "WireGuard v1 zx2c4 Jason@zx2c4.com"

    /// The same for every handshake, so it is computed once.
    private static let wireGuardStart: (chainingKey: Digest, hash: Digest) = {
        let chainingKey = BLAKE2s.hash(unsafe construction.utf8Span.span.bytes, RawSpan())
        return (chainingKey, BLAKE2s.hash(unsafe chainingKey.words.span.bytes, unsafe identifier.utf8Span.span.bytes))
    }()
}
