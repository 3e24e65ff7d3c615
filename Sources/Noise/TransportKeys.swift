import Inet

/// The two keys of one session: one seals what we send, the other opens what we receive. Wiped when the value goes.
///
/// Counting, the replay window and the age of the keys are their owner's business.
///
/// Source: WG §5.4.5, §5.4.6.
public struct TransportKeys: ~Copyable, Sendable {
    static let byteCount = 2 * ChaChaPoly.keyByteCount

    /// Initiator to responder, then responder to initiator.
    private let keys: SecretBytes
    private let sending: Int
    private let receiving: Int
    /// libcrypto's, if that is what seals and opens.
    private var prepared: Prepared?

    struct Prepared: ~Copyable {
        let sealing: PreparedChaChaPoly
        let opening: PreparedChaChaPoly
    }

    package init(_ keys: consuming SecretBytes, isInitiator: Bool) {
        precondition(keys.count == Self.byteCount, "two keys")
        self.keys = keys
        sending = isInitiator ? 0 : ChaChaPoly.keyByteCount
        receiving = isInitiator ? ChaChaPoly.keyByteCount : 0
    }

    /// Keys that were agreed on elsewhere, 32 bytes each: for tests and measurements.
    package init(initiatorToResponder: RawSpan, responderToInitiator: RawSpan, isInitiator: Bool) {
        var keys = SecretBytes(count: Self.byteCount)
        keys.withMutableBytes {
            $0.copy(initiatorToResponder, at: 0)
            $0.copy(responderToInitiator, at: ChaChaPoly.keyByteCount)
        }
        self.init(keys, isInitiator: isInitiator)
    }

    /// Lets `cipher` seal and open from now on; one that is not available is not taken. libcrypto's contexts are changed by each packet:
    /// the keys then belong to one thread at a time.
    public mutating func use(_ cipher: TransportCipher) {
        prepared =
            switch cipher {
            case .libcrypto where cipher.isAvailable:
                Prepared(
                    sealing: PreparedChaChaPoly(key: keys, at: sending, for: .seal),
                    opening: PreparedChaChaPoly(key: keys, at: receiving, for: .open))
            case .libcrypto, .libsodium: nil
            }
    }

    /// Seals `plaintext` of `buffer` in place and writes the 16-byte tag right behind it. Allocates nothing.
    ///
    /// - Parameters:
    ///   - plaintext: a range of `buffer` with at least 16 bytes behind it; empty for a keepalive.
    ///   - counter: never the same twice.
    public func seal(_ buffer: inout MutableRawSpan, plaintext: Range<Int>, counter: UInt64) {
        switch prepared {
        case .some(let prepared): prepared.sealing.seal(&buffer, plaintext: plaintext, counter: counter)
        case .none: ChaChaPoly.seal(&buffer, plaintext: plaintext, counter: counter, key: keys, at: sending)
        }
    }

    /// Checks and opens `ciphertext` of `buffer`, whose last 16 bytes are the tag, in place. Allocates nothing.
    ///
    /// - Returns: `false` if it is not authentic or shorter than a tag; the text is then worthless.
    public func open(_ buffer: inout MutableRawSpan, ciphertext: Range<Int>, counter: UInt64) -> Bool {
        switch prepared {
        case .some(let prepared): prepared.opening.open(&buffer, ciphertext: ciphertext, counter: counter)
        case .none: ChaChaPoly.open(&buffer, ciphertext: ciphertext, counter: counter, key: keys, at: receiving)
        }
    }

    /// For tests: the key that seals, and the key that opens.
    package func withKeys<Result>(_ body: (_ sending: RawSpan, _ receiving: RawSpan) -> Result) -> Result {
        keys.withBytes {
            body($0.extracting(sending..<sending + ChaChaPoly.keyByteCount), $0.extracting(receiving..<receiving + ChaChaPoly.keyByteCount))
        }
    }
}
