import Synchronization

/// Where random bytes come from: the system's generator at the edge, a seeded one in simulations.
/// Given at construction; nothing below the edge draws randomness from anywhere else.
public struct RandomSource: Sendable {
    private let body: @Sendable (inout MutableRawSpan) -> Void

    /// - Parameter body: overwrites the whole span. A source for keys must be cryptographically secure.
    public init(_ body: @escaping @Sendable (inout MutableRawSpan) -> Void) { self.body = body }

    /// Overwrites all of `bytes`.
    public func fill(_ bytes: inout MutableRawSpan) { body(&bytes) }

    /// A uniformly distributed 64-bit integer.
    public func nextUInt64() -> UInt64 {
        var value: UInt64 = 0
        unsafe withUnsafeMutableBytes(of: &value) { buffer in
            var span = unsafe MutableRawSpan(_unsafeBytes: buffer)
            body(&span)
        }
        return value
    }

    /// A uniformly distributed 32-bit integer.
    public func nextUInt32() -> UInt32 { UInt32(truncatingIfNeeded: nextUInt64()) }

    /// An integer in `0 ..< bound`; 0 if `bound` is 0. The bias is below 2^-32 for bounds below 2^32.
    public func next(below bound: UInt64) -> UInt64 { nextUInt64().multipliedFullWidth(by: bound).high }

    /// A duration drawn uniformly from zero to `limit`, in nanoseconds. Zero if `limit` is not positive.
    public func jitter(upTo limit: Duration) -> Duration {
        let nanoseconds = limit.inNanoseconds
        return nanoseconds <= 0 ? .zero : .nanoseconds(Int64(next(below: UInt64(nanoseconds) + 1)))
    }

    /// A repeatable generator (SplitMix64). For tests and test vectors only: it is predictable, so no embedder can reach it, and
    /// `scripts/check` refuses it in every target but `Vectors`.
    package static func seeded(_ seed: UInt64) -> RandomSource {
        let generator = SplitMix64(seed: seed)
        return RandomSource { bytes in
            var offset = 0
            while offset < bytes.byteCount {
                var value = generator.next()
                let end = Swift.min(offset + 8, bytes.byteCount)
                while offset < end {
                    bytes.store(UInt8(truncatingIfNeeded: value), at: offset)
                    value >>= 8
                    offset += 1
                }
            }
        }
    }

    /// An additive state, so that one atomic add makes it safe to share.
    private final class SplitMix64: Sendable {
        private let state: Atomic<UInt64>
        init(seed: UInt64) { state = Atomic(seed) }
        func next() -> UInt64 {
            var z = state.wrappingAdd(0x9E37_79B9_7F4A_7C15, ordering: .relaxed).newValue
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }
}
