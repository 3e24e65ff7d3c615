import Inet

/// HMAC-BLAKE2s and the key derivation on top of it, in two steps: extract a pseudorandom key, then expand it.
///
///     KDFn(key, input):  PRK = HMAC(key, input);  T1 = HMAC(PRK, 0x1);  Ti = HMAC(PRK, T(i-1) || i)
///
/// One value does one derivation after the other with one hash context. All intermediate values lie in secret memory and
/// are wiped when a derivation is done.
///
/// Source: RFC 2104, RFC 5869 §2, Noise §4.3, WG §5.4.
package struct KeyDerivation: ~Copyable, Sendable {
    private var hasher = BLAKE2s()
    private var work = SecretBytes(count: Work.byteCount)

    package init() {}

    /// Keeps HMAC(`key`, `input`) for ``expand(_:into:)``. A key may have any length.
    package mutating func extract(key: RawSpan, input: RawSpan) {
        // `work` lives as long as `self`, which is accessed exclusively; the two spans do not overlap.
        var block = unsafe MutableRawSpan(_unsafeStart: work.base, byteCount: Work.blockAndInner.count)
        var prk = unsafe MutableRawSpan(_unsafeStart: work.base + Work.prk.lowerBound, byteCount: Work.prk.count)
        hmac(key: key, data: input, block: &block, into: &prk, at: 0)
    }

    /// Writes T1 to T`count` one behind the other to the beginning of `output`.
    ///
    /// - Parameter count: 1 to 3.
    package mutating func expand(_ count: Int, into output: inout SecretBytes) {
        precondition(output.count >= count * BLAKE2s.digestByteCount, "no room for the keys")
        // The spans lie in `work` and `output`, which live during the call and are accessed exclusively, and do not overlap.
        var block = unsafe MutableRawSpan(_unsafeStart: work.base, byteCount: Work.blockAndInner.count)
        let prk = unsafe RawSpan(_unsafeStart: work.base + Work.prk.lowerBound, byteCount: Work.prk.count)
        var message = unsafe MutableRawSpan(_unsafeStart: work.base + Work.message.lowerBound, byteCount: Work.message.count)
        var keys = unsafe MutableRawSpan(_unsafeStart: output.base, byteCount: output.count)
        var previousCount = 0
        for index in 0..<count {
            message.store(UInt8(truncatingIfNeeded: index &+ 1), at: previousCount)
            let offset = index * BLAKE2s.digestByteCount
            hmac(key: prk, data: message.bytes.extracting(0..<previousCount + 1), block: &block, into: &keys, at: offset)
            previousCount = BLAKE2s.digestByteCount
            message.copy(keys.bytes.extracting(offset..<offset + previousCount), at: 0)
        }
        work.wipe()
    }

    /// Writes HMAC(`key`, `data`), 32 bytes, to `output`.
    package mutating func hmac(key: RawSpan, data: RawSpan, into output: inout MutableRawSpan, at offset: Int) {
        var block = unsafe MutableRawSpan(_unsafeStart: work.base, byteCount: Work.blockAndInner.count)
        hmac(key: key, data: data, block: &block, into: &output, at: offset)
        work.wipe()
    }

    /// For tests: all that an operation works with.
    package func withWork<Result>(_ body: (RawSpan) -> Result) -> Result { work.withBytes(body) }

    private mutating func hmac(
        key: RawSpan, data: RawSpan, block: inout MutableRawSpan, into output: inout MutableRawSpan, at offset: Int
    ) {
        block.zero(Work.block)
        if key.byteCount > Work.block.count {
            hasher.update(key)
            hasher.finish(into: &block, at: 0)
        } else {
            block.copy(key, at: 0)
        }
        Self.exclusiveOr(&block, 0x3636_3636_3636_3636)
        hasher.update(block.bytes.extracting(Work.block))
        hasher.update(data)
        hasher.finish(into: &block, at: Work.block.upperBound)
        Self.exclusiveOr(&block, 0x3636_3636_3636_3636 ^ 0x5C5C_5C5C_5C5C_5C5C)
        hasher.update(block.bytes)
        hasher.finish(into: &output, at: offset)
    }

    private static func exclusiveOr(_ block: inout MutableRawSpan, _ pad: UInt64) {
        for offset in stride(from: Work.block.lowerBound, to: Work.block.upperBound, by: 8) {
            block.storeLittleEndian(block.bytes.littleEndian64(at: offset) ^ pad, at: offset)
        }
    }

    /// The inner digest comes right behind the padded key, as the outer hash wants them.
    private enum Work {
        static let block = 0..<64
        static let blockAndInner = 0..<96
        static let prk = 96..<128
        static let message = 128..<161
        static let byteCount = 161
    }
}
