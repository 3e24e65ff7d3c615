import CSodium
import Inet

/// XChaCha20-Poly1305, whose 24-byte nonce may be drawn at random: for cookie replies.
///
/// Source: draft-irtf-cfrg-xchacha-03, WG §5.4.7.
public enum XChaChaPoly {
    public static let keyByteCount = 32
    public static let nonceByteCount = 24
    public static let tagByteCount = 16

    /// Encrypts `plaintext` of `buffer` in place and writes the tag right behind it.
    ///
    /// - Parameters:
    ///   - plaintext: a range of `buffer` with at least 16 bytes behind it.
    ///   - nonce: 24 bytes; never twice with one key.
    ///   - key: 32 bytes. It is a plain span because the keys of cookies derive from a public key.
    ///   - additionalData: authenticated, not encrypted.
    public static func seal(
        _ buffer: inout MutableRawSpan, plaintext: Range<Int>, nonce: RawSpan, key: RawSpan, additionalData: RawSpan
    ) {
        Sodium.initialize()
        precondition(
            plaintext.lowerBound >= 0 && plaintext.upperBound <= buffer.byteCount - tagByteCount, "no room for the tag")
        precondition(nonce.byteCount == nonceByteCount && key.byteCount == keyByteCount, "wrong length of nonce or key")
        // The preconditions are the proof for every pointer below.
        unsafe buffer.withUnsafeMutableBytes { buffer in
            let base = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
            let text = unsafe base + plaintext.lowerBound
            unsafe withPointers(nonce, key, additionalData) { nonce, key, additionalData in
                _ = unsafe crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
                    text, base + plaintext.upperBound, nil, text, UInt64(plaintext.count),
                    additionalData.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt64(additionalData.count), nil, nonce, key)
            }
        }
    }

    /// Checks and decrypts `ciphertext` of `buffer`, whose last 16 bytes are the tag, in place.
    ///
    /// - Returns: `false` if it is not authentic (or has no room for a tag); the text is then zero or unchanged.
    public static func open(
        _ buffer: inout MutableRawSpan, ciphertext: Range<Int>, nonce: RawSpan, key: RawSpan, additionalData: RawSpan
    ) -> Bool {
        Sodium.initialize()
        precondition(ciphertext.lowerBound >= 0 && ciphertext.upperBound <= buffer.byteCount, "ciphertext out of bounds")
        precondition(nonce.byteCount == nonceByteCount && key.byteCount == keyByteCount, "wrong length of nonce or key")
        guard ciphertext.count >= tagByteCount else { return false }
        // The guards above are the proof for every pointer below.
        return unsafe buffer.withUnsafeMutableBytes { buffer in
            let base = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
            let text = unsafe base + ciphertext.lowerBound
            return unsafe withPointers(nonce, key, additionalData) { nonce, key, additionalData in
                unsafe crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
                    text, nil, text, UInt64(ciphertext.count - tagByteCount), base + (ciphertext.upperBound - tagByteCount),
                    additionalData.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt64(additionalData.count), nonce, key) == 0
            }
        }
    }

    /// The subkey of a key and the first 16 bytes of a nonce: what makes ChaCha20 into XChaCha20.
    package static func hChaCha20(key: RawSpan, nonce: RawSpan) -> SecretBytes {
        precondition(nonce.byteCount == 16 && key.byteCount == keyByteCount, "wrong length of nonce or key")
        let subkey = SecretBytes(count: 32)
        unsafe withPointers(nonce, key, RawSpan()) { nonce, key, _ in
            _ = unsafe crypto_core_hchacha20(subkey.base.assumingMemoryBound(to: UInt8.self), nonce, key, nil)
        }
        return subkey
    }

    @inline(__always) private static func withPointers<Result>(
        _ nonce: RawSpan, _ key: RawSpan, _ additionalData: RawSpan,
        _ body: (UnsafePointer<UInt8>, UnsafePointer<UInt8>, UnsafeRawBufferPointer) -> Result
    ) -> Result {
        unsafe nonce.withUnsafeBytes { nonce in
            unsafe key.withUnsafeBytes { key in
                unsafe additionalData.withUnsafeBytes { additionalData in
                    unsafe body(
                        nonce.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self),
                        key.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self), additionalData)
                }
            }
        }
    }
}
