import Inet
import Noise
import Testing

/// Spans cannot be compared, so the tests look at arrays.
extension [UInt8] {
    init(_ span: RawSpan) { self = (0..<span.byteCount).map { span.byte(at: $0) } }

    init(_ secret: borrowing SecretBytes) { self = secret.withBytes { [UInt8]($0) } }

    init(_ mac: MAC) {
        self = [UInt8](repeating: 0, count: MAC.byteCount)
        var span = mutableSpan
        var bytes = span.mutableBytes
        mac.write(into: &bytes, at: 0)
    }

    init(_ digest: Digest) { self = [UInt8](digest.words.span.bytes) }

    init(_ hash: HandshakeHash) { self = hash.withBytes { [UInt8]($0) } }

    init(_ key: PublicKey) {
        self = [UInt8](repeating: 0, count: PublicKey.byteCount)
        var span = mutableSpan
        var bytes = span.mutableBytes
        key.write(into: &bytes, at: 0)
    }

    init(_ label: TAI64N) {
        self = [UInt8](repeating: 0, count: TAI64N.byteCount)
        var span = mutableSpan
        var bytes = span.mutableBytes
        label.write(into: &bytes, at: 0)
    }

    init(utf8 text: String) { self = Array(text.utf8) }

    /// The same bytes with one bit turned over.
    func flipping(bit: Int, at offset: Int) -> [UInt8] {
        var copy = self
        copy[offset] ^= 1 << UInt8(bit)
        return copy
    }
}

extension SecretBytes {
    init(_ bytes: [UInt8]) { self.init(copying: bytes.span.bytes) }
}

extension PublicKey {
    init(_ bytes: [UInt8]) throws {
        guard let key = PublicKey(bytes.span.bytes) else { throw NotAKey() }
        self = key
    }
}

extension TAI64N {
    init(_ bytes: [UInt8]) throws {
        guard let label = TAI64N(bytes.span.bytes) else { throw NotAKey() }
        self = label
    }
}

/// A non-copyable optional cannot go through `#require`.
struct NotAKey: Error {}

extension PrivateKey {
    static func make(_ bytes: [UInt8]) throws -> PrivateKey {
        guard let key = PrivateKey(bytes.span.bytes) else { throw NotAKey() }
        return key
    }
}

extension PresharedKey {
    static func make(_ bytes: [UInt8]) throws -> PresharedKey {
        guard let key = PresharedKey(bytes.span.bytes) else { throw NotAKey() }
        return key
    }
}

/// The error that `body` throws, or `nil`.
func failure<Value: ~Copyable>(_ body: () throws(HandshakeError) -> Value) -> HandshakeError? {
    do {
        _ = try body()
        return nil
    } catch {
        return error
    }
}
