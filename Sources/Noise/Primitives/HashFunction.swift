import CCrypto
import Inet

/// The hash functions that a Noise protocol may name, by libcrypto (libsodium has no BLAKE2s).
///
/// Source: Noise §12.5 to §12.8.
public enum HashFunction: String, CaseIterable, Hashable, Sendable {
    case blake2s = "BLAKE2s"
    case blake2b = "BLAKE2b"
    case sha256 = "SHA256"
    case sha512 = "SHA512"

    /// HASHLEN: bytes of a digest, 32 or 64.
    public var digestByteCount: Int {
        switch self {
        case .blake2s, .sha256: 32
        case .blake2b, .sha512: 64
        }
    }

    /// BLOCKLEN: bytes that the function takes at once, 64 or 128.
    public var blockByteCount: Int { 2 * digestByteCount }
}

/// One libcrypto context, used for one hash after the other: that is several times faster than a new context each time. libcrypto
/// wipes the state whenever a hash is finished.
@safe package struct HashContext: ~Copyable, @unchecked Sendable {
    package let function: HashFunction

    // The value is the only owner of the context, which is why it may go from thread to thread.
    private let context: OpaquePointer

    package init(_ function: HashFunction) {
        self.function = function
        unsafe context = EVP_MD_CTX_new().orTrap("a digest context")
        let started = unsafe EVP_DigestInit_ex2(context, Self.algorithm(function), nil)
        precondition(started == 1, "libcrypto does not start a hash")
    }

    deinit { unsafe EVP_MD_CTX_free(context) }

    package mutating func update(_ bytes: RawSpan) {
        let updated = unsafe bytes.withUnsafeBytes { unsafe EVP_DigestUpdate(context, $0.baseAddress, $0.count) }
        precondition(updated == 1, "libcrypto does not hash")
    }

    /// Writes the digest of everything since the last one, and starts over.
    package mutating func finish(into output: inout MutableRawSpan, at offset: Int) {
        precondition(offset >= 0 && function.digestByteCount <= output.byteCount - offset, "no room for the digest")
        // The precondition is the proof that the digest fits.
        let finished = unsafe output.withUnsafeMutableBytes { output in
            unsafe EVP_DigestFinal_ex(context, output.baseAddress?.advanced(by: offset).assumingMemoryBound(to: UInt8.self), nil)
        }
        let started = unsafe EVP_DigestInit_ex2(context, nil, nil)
        precondition(finished == 1 && started == 1, "libcrypto does not finish a hash")
    }

    private static func algorithm(_ function: HashFunction) -> OpaquePointer {
        switch function {
        case .blake2s: unsafe blake2s
        case .blake2b: unsafe blake2b
        case .sha256: unsafe sha256
        case .sha512: unsafe sha512
        }
    }

    // Fetched once for the process and only read afterwards; libcrypto counts references to them atomically.
    nonisolated(unsafe) private static let blake2s: OpaquePointer = unsafe EVP_MD_fetch(nil, "BLAKE2S-256", nil).orTrap("BLAKE2S-256")
    nonisolated(unsafe) private static let blake2b: OpaquePointer = unsafe EVP_MD_fetch(nil, "BLAKE2B-512", nil).orTrap("BLAKE2B-512")
    nonisolated(unsafe) private static let sha256: OpaquePointer = unsafe EVP_MD_fetch(nil, "SHA2-256", nil).orTrap("SHA2-256")
    nonisolated(unsafe) private static let sha512: OpaquePointer = unsafe EVP_MD_fetch(nil, "SHA2-512", nil).orTrap("SHA2-512")
}

extension Optional where Wrapped == OpaquePointer {
    /// Without the algorithm, or without memory for its context, nothing can go on.
    func orTrap(_ what: StaticString) -> OpaquePointer {
        guard let pointer = self else { preconditionFailure("libcrypto does not give \(what)") }
        return unsafe pointer
    }
}
