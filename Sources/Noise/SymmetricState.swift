import Inet

/// Noise's symmetric state: the chaining key, the handshake hash, and the current cipher key.
///
/// Source: Noise §5.2.
package struct SymmetricState: ~Copyable, Sendable {
    package let cipher: CipherFunction
    package let hashFunction: HashFunction
    /// The handshake hash `h`.
    package private(set) var hash = HandshakeHash()
    /// Whether there is a cipher key; without one, what would be sealed goes in the clear (Noise §5.1).
    package private(set) var hasKey = false

    /// Chaining key, cipher key, and a place for the third output of the derivation, HASHLEN bytes each.
    private var secrets: SecretBytes
    private var derivation: KeyDerivation
    private var hasher: HashContext
    private var nonce: UInt64 = 0

    /// Noise's `InitializeSymmetric`.
    package init(_ name: borrowing NoiseProtocol) {
        self.init(cipher: name.cipher, hash: name.hash)
        let length = hashFunction.digestByteCount
        let text = unsafe name.name.utf8Span.span.bytes
        hash = HandshakeHash(byteCount: length)
        if text.byteCount <= length {
            hash.withMutableBytes { $0.copy(text, at: 0) }
        } else {
            hasher.update(text)
            finishHash()
        }
        hash.withBytes { bytes in secrets.withMutableBytes { $0.copy(bytes, at: 0) } }
    }

    /// The state that every WireGuard handshake starts from; the responder's static key is mixed in next.
    package static func wireGuard() -> SymmetricState {
        var state = SymmetricState(.wireGuard)
        state.mixHash(unsafe HandshakeState.identifier.utf8Span.span.bytes)
        return state
    }

    private init(cipher: CipherFunction, hash: HashFunction) {
        self.cipher = cipher
        hashFunction = hash
        secrets = SecretBytes(count: 3 * hash.digestByteCount)
        derivation = KeyDerivation(hash)
        hasher = HashContext(hash)
    }

    /// Another value in the same state.
    package func copy() -> SymmetricState {
        var other = SymmetricState(cipher: cipher, hash: hashFunction)
        other.hash = hash
        other.hasKey = hasKey
        other.secrets = secrets.copy()
        other.nonce = nonce
        return other
    }

    package mutating func mixHash(_ data: RawSpan) {
        hash.withBytes { hasher.update($0) }
        hasher.update(data)
        finishHash()
    }

    package mutating func mixHash(_ key: PublicKey) { mixHash(unsafe key.words.span.bytes) }

    package mutating func mixKey(_ input: RawSpan) {
        mix(input, outputs: 2)
        hasKey = true
    }

    package mutating func mixKey(_ key: PublicKey) { mixKey(unsafe key.words.span.bytes) }

    package mutating func mixKey(_ input: borrowing SecretBytes) { input.withBytes { mixKey($0) } }

    package mutating func mixKeyAndHash(_ input: RawSpan) {
        mix(input, outputs: 3)
        hasKey = true
        let length = hashFunction.digestByteCount
        // `secrets` lives as long as `self`, which is accessed exclusively.
        var bytes = unsafe MutableRawSpan(_unsafeStart: secrets.base, byteCount: secrets.count)
        mixHash(bytes.bytes.extracting(length..<2 * length))
        bytes.copy(
            unsafe RawSpan(_unsafeStart: secrets.base + 2 * length, byteCount: CipherFunction.keyByteCount), at: length)
        bytes.zero(2 * length..<3 * length)
    }

    package mutating func mixKeyAndHash(_ input: borrowing SecretBytes) { input.withBytes { mixKeyAndHash($0) } }

    /// Seals `plaintext` of `message` in place, writes the tag behind it, and mixes both into the hash. Without a key nothing is sealed.
    ///
    /// - Returns: where the field ends.
    @discardableResult
    package mutating func encryptAndHash(_ message: inout MutableRawSpan, plaintext: Range<Int>) -> Int {
        guard hasKey else {
            mixHash(message.bytes.extracting(plaintext))
            return plaintext.upperBound
        }
        cipher.seal(
            &message, plaintext: plaintext, counter: nonce, key: secrets, at: hashFunction.digestByteCount,
            additionalData: unsafe hash.words.span.bytes.extracting(0..<hash.byteCount))
        // A message holds fewer fields than there are nonces.
        nonce &+= 1
        let end = plaintext.upperBound + CipherFunction.tagByteCount
        mixHash(message.bytes.extracting(plaintext.lowerBound..<end))
        return end
    }

    /// Opens `ciphertext` (tag included) of `message` in place and mixes it into the hash. Without a key it is in the clear.
    ///
    /// - Throws: ``HandshakeError/authenticationFailed``; the state is then as before.
    package mutating func decryptAndHash(_ message: inout MutableRawSpan, ciphertext: Range<Int>) throws(HandshakeError) {
        guard hasKey else { return mixHash(message.bytes.extracting(ciphertext)) }
        var next = hash
        next.withBytes { hasher.update($0) }
        hasher.update(message.bytes.extracting(ciphertext))
        next.withMutableBytes { hasher.finish(into: &$0, at: 0) }
        guard
            cipher.open(
                &message, ciphertext: ciphertext, counter: nonce, key: secrets, at: hashFunction.digestByteCount,
                additionalData: unsafe hash.words.span.bytes.extracting(0..<hash.byteCount))
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

    /// Noise's `Split`: both keys, 32 bytes each; the first seals what the initiator sends.
    package consuming func split() -> SecretBytes {
        let length = hashFunction.digestByteCount
        derivation.extract(key: unsafe RawSpan(_unsafeStart: secrets.base, byteCount: length), input: RawSpan())
        var outputs = SecretBytes(count: 2 * length)
        derivation.expand(2, into: &outputs)
        if length == CipherFunction.keyByteCount { return outputs }
        // Of longer outputs the first 32 bytes count.
        var keys = SecretBytes(count: 2 * CipherFunction.keyByteCount)
        outputs.withBytes { outputs in
            keys.withMutableBytes {
                $0.copy(outputs.extracting(0..<CipherFunction.keyByteCount), at: 0)
                $0.copy(outputs.extracting(length..<length + CipherFunction.keyByteCount), at: CipherFunction.keyByteCount)
            }
        }
        return keys
    }

    private mutating func mix(_ input: RawSpan, outputs: Int) {
        // `secrets` lives as long as `self`, which is accessed exclusively; it is overwritten only after it was read.
        derivation.extract(key: unsafe RawSpan(_unsafeStart: secrets.base, byteCount: hashFunction.digestByteCount), input: input)
        derivation.expand(outputs, into: &secrets)
        nonce = 0
    }

    private mutating func finishHash() { hash.withMutableBytes { hasher.finish(into: &$0, at: 0) } }

    /// For tests of every step.
    package func withChainingKey<Result>(_ body: (RawSpan) -> Result) -> Result {
        secrets.withBytes { body($0.extracting(0..<hashFunction.digestByteCount)) }
    }

    /// For tests of every step.
    package func withCipherKey<Result>(_ body: (RawSpan) -> Result) -> Result {
        let offset = hashFunction.digestByteCount
        return secrets.withBytes { body($0.extracting(offset..<offset + CipherFunction.keyByteCount)) }
    }

    /// For tests: what no operation may leave a secret in.
    package func withSpare<Result>(_ body: (RawSpan) -> Result) -> Result {
        secrets.withBytes { body($0.extracting(2 * hashFunction.digestByteCount..<$0.byteCount)) }
    }
}

/// The handshake hash, 32 or 64 bytes. It is no secret: both sides may use it to tell sessions apart (Noise §11.2).
package struct HandshakeHash: Equatable, Sendable {
    // Integers have no padding and no invalid bit pattern, so that looking at their bytes, which is `unsafe`, is sound.
    package private(set) var words = InlineArray<8, UInt64>(repeating: 0)
    package let byteCount: Int

    init(byteCount: Int = 32) { self.byteCount = byteCount }

    package func withBytes<Result: ~Copyable>(_ body: (RawSpan) -> Result) -> Result {
        body(unsafe words.span.bytes.extracting(0..<byteCount))
    }

    mutating func withMutableBytes<Result: ~Copyable>(_ body: (inout MutableRawSpan) -> Result) -> Result {
        var span = words.mutableSpan
        var bytes = unsafe span.mutableBytes
        return body(&bytes)
    }

    package static func == (left: HandshakeHash, right: HandshakeHash) -> Bool {
        left.byteCount == right.byteCount && left.words.indices.allSatisfy { left.words[$0] == right.words[$0] }
    }
}
