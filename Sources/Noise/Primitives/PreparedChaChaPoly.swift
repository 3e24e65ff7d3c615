import CCrypto
import Inet

/// ChaCha20-Poly1305 by libcrypto under one key and in one direction, with the same nonces as ``ChaChaPoly``. The context is made
/// once for a key, since that costs more than a small packet; afterwards nothing allocates. libcrypto wipes it when the value goes.
/// It belongs to one thread at a time, also when it only seals.
///
/// Source: RFC 8439 §2.8, WG §5.4.
@safe struct PreparedChaChaPoly: ~Copyable, @unchecked Sendable {
    enum Direction {
        case seal
        case open
    }

    private let context: OpaquePointer

    /// - Parameter key: holds the 32-byte key at `keyOffset`.
    init(key: borrowing SecretBytes, at keyOffset: Int, for direction: Direction) {
        precondition(keyOffset >= 0 && keyOffset <= key.count - ChaChaPoly.keyByteCount, "no key")
        unsafe context = EVP_CIPHER_CTX_new().orTrap("a cipher context")
        // The precondition is the proof for the pointer.
        let key = unsafe key.base.assumingMemoryBound(to: UInt8.self) + keyOffset
        let isReady =
            switch direction {
            case .seal: unsafe EVP_EncryptInit_ex2(context, Self.algorithm, key, nil, nil) == 1
            case .open: unsafe EVP_DecryptInit_ex2(context, Self.algorithm, key, nil, nil) == 1
            }
        precondition(isReady, "libcrypto does not take a key")
    }

    deinit { unsafe EVP_CIPHER_CTX_free(context) }

    /// As ``ChaChaPoly/seal(_:plaintext:counter:key:at:additionalData:)``, without additional data.
    func seal(_ buffer: inout MutableRawSpan, plaintext: Range<Int>, counter: UInt64) {
        precondition(
            plaintext.lowerBound >= 0 && plaintext.upperBound <= buffer.byteCount - ChaChaPoly.tagByteCount, "no room for the tag")
        // The precondition is the proof for every pointer below.
        let isSealed = unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe ChaChaPoly.withNonce(counter) { nonce in
                let base = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
                let text = unsafe base + plaintext.lowerBound
                var written: CInt = 0
                return unsafe EVP_EncryptInit_ex2(context, nil, nil, nonce, nil) == 1
                    && EVP_EncryptUpdate(context, text, &written, text, CInt(plaintext.count)) == 1
                    && EVP_EncryptFinal_ex(context, base + plaintext.upperBound, &written) == 1
                    && EVP_CIPHER_CTX_ctrl(
                        context, EVP_CTRL_AEAD_GET_TAG, CInt(ChaChaPoly.tagByteCount), base + plaintext.upperBound) == 1
            }
        }
        precondition(isSealed, "libcrypto does not seal")
    }

    /// As ``ChaChaPoly/open(_:ciphertext:counter:key:at:additionalData:)``, without additional data.
    func open(_ buffer: inout MutableRawSpan, ciphertext: Range<Int>, counter: UInt64) -> Bool {
        precondition(ciphertext.lowerBound >= 0 && ciphertext.upperBound <= buffer.byteCount, "ciphertext out of bounds")
        guard ciphertext.count >= ChaChaPoly.tagByteCount else { return false }
        let count = ciphertext.count - ChaChaPoly.tagByteCount
        // The guards above are the proof for every pointer below.
        let isOpened = unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe ChaChaPoly.withNonce(counter) { nonce in
                let text = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self) + ciphertext.lowerBound
                var written: CInt = 0
                var rest: UInt8 = 0
                return unsafe EVP_DecryptInit_ex2(context, nil, nil, nonce, nil) == 1
                    && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, CInt(ChaChaPoly.tagByteCount), text + count) == 1
                    && EVP_DecryptUpdate(context, text, &written, text, CInt(count)) == 1
                    && EVP_DecryptFinal_ex(context, &rest, &written) == 1
            }
        }
        // Unlike libsodium, libcrypto has written what it did not authenticate.
        if !isOpened {
            buffer.zero(ciphertext.lowerBound..<ciphertext.lowerBound + count)
            ERR_clear_error()
        }
        return isOpened
    }

    /// Whether libcrypto has it; one that is held to FIPS 140 has not.
    static var isAvailable: Bool { unsafe algorithm != nil }

    // Fetched once for the process and only read afterwards; libcrypto counts references to it atomically.
    nonisolated(unsafe) private static let algorithm: OpaquePointer? = unsafe EVP_CIPHER_fetch(nil, "ChaCha20-Poly1305", nil)
}
