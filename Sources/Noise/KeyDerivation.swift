import Inet

/// HMAC and the key derivation on top of it, in two steps: extract a pseudorandom key, then expand it.
///
///     KDFn(key, input):  PRK = HMAC(key, input);  T1 = HMAC(PRK, 0x1);  Ti = HMAC(PRK, T(i-1) || i)
///
/// One value does one derivation after the other with one hash context. All intermediate values lie in secret memory and
/// are wiped when a derivation is done.
///
/// Source: RFC 2104, RFC 5869 §2, Noise §4.3, WG §5.4.
package struct KeyDerivation: ~Copyable, Sendable {
    private var hasher: HashContext
    private let layout: Work
    private var work: SecretBytes

    package init(_ function: HashFunction = .blake2s) {
        hasher = HashContext(function)
        layout = Work(function)
        work = SecretBytes(count: layout.byteCount)
    }

    /// Keeps HMAC(`key`, `input`) for ``expand(_:into:)``. A key may have any length.
    package mutating func extract(key: RawSpan, input: RawSpan) {
        // `work` lives as long as `self`, which is accessed exclusively; the two spans do not overlap.
        var block = unsafe MutableRawSpan(_unsafeStart: work.base, byteCount: layout.blockAndInner.count)
        var prk = unsafe MutableRawSpan(_unsafeStart: work.base + layout.prk.lowerBound, byteCount: layout.prk.count)
        hmac(key: key, data: input, block: &block, into: &prk, at: 0)
    }

    /// Writes T1 to T`count` one behind the other to the beginning of `output`.
    ///
    /// - Parameter count: 1 to 3.
    package mutating func expand(_ count: Int, into output: inout SecretBytes) {
        precondition(output.count >= count * layout.digestByteCount, "no room for the keys")
        // The spans lie in `work` and `output`, which live during the call and are accessed exclusively, and do not overlap.
        var block = unsafe MutableRawSpan(_unsafeStart: work.base, byteCount: layout.blockAndInner.count)
        let prk = unsafe RawSpan(_unsafeStart: work.base + layout.prk.lowerBound, byteCount: layout.prk.count)
        var message = unsafe MutableRawSpan(_unsafeStart: work.base + layout.message.lowerBound, byteCount: layout.message.count)
        var keys = unsafe MutableRawSpan(_unsafeStart: output.base, byteCount: output.count)
        var previousCount = 0
        for index in 0..<count {
            message.store(UInt8(truncatingIfNeeded: index &+ 1), at: previousCount)
            let offset = index * layout.digestByteCount
            hmac(key: prk, data: message.bytes.extracting(0..<previousCount + 1), block: &block, into: &keys, at: offset)
            previousCount = layout.digestByteCount
            message.copy(keys.bytes.extracting(offset..<offset + previousCount), at: 0)
        }
        work.wipe()
    }

    /// Writes HMAC(`key`, `data`), one digest, to `output`.
    package mutating func hmac(key: RawSpan, data: RawSpan, into output: inout MutableRawSpan, at offset: Int) {
        var block = unsafe MutableRawSpan(_unsafeStart: work.base, byteCount: layout.blockAndInner.count)
        hmac(key: key, data: data, block: &block, into: &output, at: offset)
        work.wipe()
    }

    /// For tests: all that an operation works with.
    package func withWork<Result>(_ body: (RawSpan) -> Result) -> Result { work.withBytes(body) }

    private mutating func hmac(
        key: RawSpan, data: RawSpan, block: inout MutableRawSpan, into output: inout MutableRawSpan, at offset: Int
    ) {
        block.zero(layout.block)
        if key.byteCount > layout.block.count {
            hasher.update(key)
            hasher.finish(into: &block, at: 0)
        } else {
            block.copy(key, at: 0)
        }
        exclusiveOr(&block, 0x3636_3636_3636_3636)
        hasher.update(block.bytes.extracting(layout.block))
        hasher.update(data)
        hasher.finish(into: &block, at: layout.block.upperBound)
        exclusiveOr(&block, 0x3636_3636_3636_3636 ^ 0x5C5C_5C5C_5C5C_5C5C)
        hasher.update(block.bytes)
        hasher.finish(into: &output, at: offset)
    }

    private func exclusiveOr(_ block: inout MutableRawSpan, _ pad: UInt64) {
        for offset in stride(from: layout.block.lowerBound, to: layout.block.upperBound, by: 8) {
            block.storeLittleEndian(block.bytes.littleEndian64(at: offset) ^ pad, at: offset)
        }
    }

    /// Where things lie in `work`. The inner digest comes right behind the padded key, as the outer hash wants them.
    private struct Work {
        let digestByteCount: Int
        let block: Range<Int>
        let blockAndInner: Range<Int>
        let prk: Range<Int>
        let message: Range<Int>
        let byteCount: Int

        init(_ function: HashFunction) {
            digestByteCount = function.digestByteCount
            block = 0..<function.blockByteCount
            blockAndInner = 0..<block.upperBound + digestByteCount
            prk = blockAndInner.upperBound..<blockAndInner.upperBound + digestByteCount
            message = prk.upperBound..<prk.upperBound + digestByteCount + 1
            byteCount = message.upperBound
        }
    }
}
