import CCrypto
import Inet

/// BLAKE2s with a 32-byte digest, by libcrypto (libsodium has only BLAKE2b).
///
/// One value owns one libcrypto context and uses it for one hash after the other: that is several times faster than a
/// new context each time. libcrypto wipes the state whenever a hash is finished.
///
/// Source: RFC 7693.
@safe package struct BLAKE2s: ~Copyable, @unchecked Sendable {
    package static let digestByteCount = 32
    package static let blockByteCount = 64

    // The value is the only owner of the context, which is why it may go from thread to thread.
    private let context: OpaquePointer

    package init() {
        unsafe context = EVP_MD_CTX_new().orTrap("a digest context")
        let started = unsafe EVP_DigestInit_ex2(context, Self.algorithm, nil)
        precondition(started == 1, "libcrypto does not start BLAKE2s")
    }

    deinit { unsafe EVP_MD_CTX_free(context) }

    /// The digest of `first` followed by `second`.
    package static func hash(_ first: RawSpan, _ second: RawSpan) -> Digest {
        var hasher = BLAKE2s()
        return hasher.hash(first, second)
    }

    /// The digest of `first` followed by `second`.
    package mutating func hash(_ first: RawSpan, _ second: RawSpan) -> Digest {
        update(first)
        update(second)
        return finish()
    }

    package mutating func update(_ bytes: RawSpan) {
        let updated = unsafe bytes.withUnsafeBytes { unsafe EVP_DigestUpdate(context, $0.baseAddress, $0.count) }
        precondition(updated == 1, "libcrypto does not hash")
    }

    package mutating func finish() -> Digest {
        var digest = Digest()
        var words = digest.words.mutableSpan
        // Integers have no invalid bit pattern.
        var bytes = unsafe words.mutableBytes
        finish(into: &bytes, at: 0)
        return digest
    }

    /// Writes the digest of everything since the last one, and starts over.
    package mutating func finish(into output: inout MutableRawSpan, at offset: Int) {
        precondition(offset >= 0 && Self.digestByteCount <= output.byteCount - offset, "no room for the digest")
        // The precondition is the proof that 32 bytes fit.
        let finished = unsafe output.withUnsafeMutableBytes { output in
            unsafe EVP_DigestFinal_ex(context, output.baseAddress?.advanced(by: offset).assumingMemoryBound(to: UInt8.self), nil)
        }
        let started = unsafe EVP_DigestInit_ex2(context, nil, nil)
        precondition(finished == 1 && started == 1, "libcrypto does not finish a hash")
    }

    // Fetched once for the process and only read afterwards; libcrypto counts references to it atomically.
    nonisolated(unsafe) private static let algorithm: OpaquePointer = unsafe EVP_MD_fetch(nil, "BLAKE2S-256", nil).orTrap("BLAKE2S-256")
}

/// 32 bytes of hash output.
package struct Digest: Equatable, Sendable {
    package var words: InlineArray<4, UInt64>

    package init() { words = InlineArray(repeating: 0) }

    package static func == (left: Digest, right: Digest) -> Bool {
        left.words[0] == right.words[0] && left.words[1] == right.words[1]
            && left.words[2] == right.words[2] && left.words[3] == right.words[3]
    }
}

extension Optional where Wrapped == OpaquePointer {
    /// Without the algorithm, or without memory for its context, nothing can go on.
    func orTrap(_ what: StaticString) -> OpaquePointer {
        guard let pointer = self else { preconditionFailure("libcrypto does not give \(what)") }
        return unsafe pointer
    }
}
