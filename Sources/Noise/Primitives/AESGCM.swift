import CCrypto
import Inet

/// AES-256-GCM as Noise uses it, by libcrypto: 96-bit nonces of four zero bytes and the counter in *big*-endian order. Nothing of
/// WireGuard uses it; it is here for Noise protocols whose names ask for it, and not made fast.
///
/// Source: Noise §12.4, NIST SP 800-38D.
enum AESGCM {
    /// As ``ChaChaPoly/seal(_:plaintext:counter:key:at:additionalData:)``.
    static func seal(
        _ buffer: inout MutableRawSpan, plaintext: Range<Int>, counter: UInt64, key: borrowing SecretBytes, at keyOffset: Int,
        additionalData: RawSpan
    ) {
        precondition(plaintext.lowerBound >= 0 && plaintext.upperBound <= buffer.byteCount - tagByteCount, "no room for the tag")
        precondition(keyOffset >= 0 && keyOffset <= key.count - 32, "no key")
        let context = unsafe EVP_CIPHER_CTX_new().orTrap("a cipher context")
        defer { unsafe EVP_CIPHER_CTX_free(context) }
        // The preconditions are the proof for every pointer below.
        let isSealed = unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe withNonce(counter) { nonce in
                unsafe additionalData.withUnsafeBytes { additionalData in
                    let base = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
                    let text = unsafe base + plaintext.lowerBound
                    var written: CInt = 0
                    return unsafe EVP_EncryptInit_ex2(
                        context, algorithm, key.base.assumingMemoryBound(to: UInt8.self) + keyOffset, nonce, nil) == 1
                        && EVP_EncryptUpdate(
                            context, nil, &written, additionalData.baseAddress?.assumingMemoryBound(to: UInt8.self),
                            CInt(additionalData.count)) == 1
                        && EVP_EncryptUpdate(context, text, &written, text, CInt(plaintext.count)) == 1
                        && EVP_EncryptFinal_ex(context, base + plaintext.upperBound, &written) == 1
                        && EVP_CIPHER_CTX_ctrl(
                            context, EVP_CTRL_AEAD_GET_TAG, CInt(tagByteCount), base + plaintext.upperBound) == 1
                }
            }
        }
        precondition(isSealed, "libcrypto does not seal")
    }

    /// As ``ChaChaPoly/open(_:ciphertext:counter:key:at:additionalData:)``.
    static func open(
        _ buffer: inout MutableRawSpan, ciphertext: Range<Int>, counter: UInt64, key: borrowing SecretBytes, at keyOffset: Int,
        additionalData: RawSpan
    ) -> Bool {
        precondition(ciphertext.lowerBound >= 0 && ciphertext.upperBound <= buffer.byteCount, "ciphertext out of bounds")
        precondition(keyOffset >= 0 && keyOffset <= key.count - 32, "no key")
        guard ciphertext.count >= tagByteCount else { return false }
        let context = unsafe EVP_CIPHER_CTX_new().orTrap("a cipher context")
        defer { unsafe EVP_CIPHER_CTX_free(context) }
        let count = ciphertext.count - tagByteCount
        // The guards above are the proof for every pointer below.
        let isOpened = unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe withNonce(counter) { nonce in
                unsafe additionalData.withUnsafeBytes { additionalData in
                    let base = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
                    let text = unsafe base + ciphertext.lowerBound
                    var written: CInt = 0
                    var rest: UInt8 = 0
                    return unsafe EVP_DecryptInit_ex2(
                        context, algorithm, key.base.assumingMemoryBound(to: UInt8.self) + keyOffset, nonce, nil) == 1
                        && EVP_DecryptUpdate(
                            context, nil, &written, additionalData.baseAddress?.assumingMemoryBound(to: UInt8.self),
                            CInt(additionalData.count)) == 1
                        && EVP_DecryptUpdate(context, text, &written, text, CInt(count)) == 1
                        && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, CInt(tagByteCount), text + count) == 1
                        && EVP_DecryptFinal_ex(context, &rest, &written) == 1
                }
            }
        }
        // Unlike libsodium, libcrypto has written what it did not authenticate.
        if !isOpened { buffer.zero(ciphertext.lowerBound..<ciphertext.lowerBound + count) }
        return isOpened
    }

    static let tagByteCount = 16

    /// Whether libcrypto has it; a library that was built or configured without it may not.
    static var isAvailable: Bool { unsafe algorithm != nil }

    private static func withNonce<Result>(_ counter: UInt64, _ body: (UnsafePointer<UInt8>) -> Result) -> Result {
        let high = UInt32(truncatingIfNeeded: counter >> 32).bigEndian
        let low = UInt32(truncatingIfNeeded: counter).bigEndian
        let nonce: InlineArray<3, UInt32> = [0, high, low]
        return unsafe withUnsafeBytes(of: nonce) { nonce in
            unsafe body(nonce.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self))
        }
    }

    // Fetched once for the process and only read afterwards; libcrypto counts references to it atomically.
    nonisolated(unsafe) private static let algorithm: OpaquePointer? = unsafe EVP_CIPHER_fetch(nil, "AES-256-GCM", nil)
}
