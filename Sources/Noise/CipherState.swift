import Inet

/// One direction of a finished handshake: a key and its counter. Wiped when the value goes.
///
/// Source: Noise §5.1.
public struct CipherState: ~Copyable, Sendable {
    public let cipher: CipherFunction
    /// The counter of the next message.
    public private(set) var nonce: UInt64 = 0
    private var key: SecretBytes

    init(_ cipher: CipherFunction, key: RawSpan) {
        self.cipher = cipher
        self.key = SecretBytes(copying: key)
    }

    /// Seals `plaintext` of `buffer` in place and writes the 16-byte tag behind it.
    ///
    /// - Throws: ``NoiseError/messageTooLong`` if there is no room for the tag, or more than 65,535 bytes would result;
    ///   ``NoiseError/nonceExhausted``.
    public mutating func encrypt(
        _ buffer: inout MutableRawSpan, plaintext: Range<Int>, additionalData: RawSpan = RawSpan()
    ) throws(NoiseError) {
        guard plaintext.lowerBound >= 0, plaintext.upperBound <= buffer.byteCount - CipherFunction.tagByteCount,
            plaintext.count <= HandshakeState.maximumMessage - CipherFunction.tagByteCount
        else { throw .messageTooLong }
        // The last nonce is kept for `rekey` (Noise §5.1).
        guard nonce < .max else { throw .nonceExhausted }
        cipher.seal(&buffer, plaintext: plaintext, counter: nonce, key: key, at: 0, additionalData: additionalData)
        nonce += 1
    }

    /// Opens `ciphertext` of `buffer`, whose last 16 bytes are the tag, in place. A message that fails uses up no nonce.
    ///
    /// - Throws: ``NoiseError/messageTooShort``, ``NoiseError/authenticationFailed``, ``NoiseError/nonceExhausted``.
    public mutating func decrypt(
        _ buffer: inout MutableRawSpan, ciphertext: Range<Int>, additionalData: RawSpan = RawSpan()
    ) throws(NoiseError) {
        guard ciphertext.count <= HandshakeState.maximumMessage else { throw .messageTooLong }
        guard ciphertext.lowerBound >= 0, ciphertext.upperBound <= buffer.byteCount, ciphertext.count >= CipherFunction.tagByteCount
        else { throw .messageTooShort }
        guard nonce < .max else { throw .nonceExhausted }
        guard cipher.open(&buffer, ciphertext: ciphertext, counter: nonce, key: key, at: 0, additionalData: additionalData) else {
            throw .authenticationFailed
        }
        nonce += 1
    }

    /// Replaces the key by one that it derives; the counter goes on (Noise §11.3).
    public mutating func rekey() {
        var work = SecretBytes(count: CipherFunction.keyByteCount + CipherFunction.tagByteCount)
        // `work` lives during the call and is accessed exclusively.
        var bytes = unsafe MutableRawSpan(_unsafeStart: work.base, byteCount: work.count)
        cipher.seal(&bytes, plaintext: 0..<CipherFunction.keyByteCount, counter: .max, key: key, at: 0, additionalData: RawSpan())
        key = SecretBytes(copying: bytes.bytes.extracting(0..<CipherFunction.keyByteCount))
        work.wipe()
    }

    /// For tests and vectors: moves the counter.
    package mutating func setNonce(_ nonce: UInt64) { self.nonce = nonce }
}

/// Both directions of a finished handshake. Of a one-way pattern only the first may be used.
///
/// Source: Noise §5.2 (`Split`), §7.4.
public struct CipherStates: ~Copyable, Sendable {
    public var initiatorToResponder: CipherState
    public var responderToInitiator: CipherState
}
