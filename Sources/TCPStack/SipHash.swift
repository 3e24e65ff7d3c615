import Inet

/// SipHash-2-4 over whole 64-bit words: a keyed hash that a peer cannot predict.
/// Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF".
package struct SipHash: Sendable {
    private let key0: UInt64
    private let key1: UInt64

    package init(key0: UInt64, key1: UInt64) {
        self.key0 = key0
        self.key1 = key1
    }

    package init(random: RandomSource) { self.init(key0: random.nextUInt64(), key1: random.nextUInt64()) }

    /// The hash of a connection's two ends.
    package func hash(local: SocketEndpoint, remote: SocketEndpoint) -> UInt64 {
        var state = State(key0, key1)
        state.absorb(local.address.high)
        state.absorb(local.address.low)
        state.absorb(remote.address.high)
        state.absorb(remote.address.low)
        state.absorb(UInt64(local.port) << 32 | UInt64(remote.port) << 8 | UInt64(local.address.family.rawValue))
        return state.finish(byteCount: 40)
    }

    /// The hash of a connection's two ends and two words more.
    package func hash(local: SocketEndpoint, remote: SocketEndpoint, _ first: UInt64, _ second: UInt64) -> UInt64 {
        var state = State(key0, key1)
        state.absorb(local.address.high)
        state.absorb(local.address.low)
        state.absorb(remote.address.high)
        state.absorb(remote.address.low)
        state.absorb(UInt64(local.port) << 32 | UInt64(remote.port) << 8 | UInt64(local.address.family.rawValue))
        state.absorb(first)
        state.absorb(second)
        return state.finish(byteCount: 56)
    }

    /// The hash of `words` in little-endian order.
    package func hash(_ words: [UInt64]) -> UInt64 {
        var state = State(key0, key1)
        for word in words { state.absorb(word) }
        return state.finish(byteCount: words.count * 8)
    }

    private struct State {
        var v0: UInt64
        var v1: UInt64
        var v2: UInt64
        var v3: UInt64

        @inline(__always) init(_ key0: UInt64, _ key1: UInt64) {
            v0 = key0 ^ 0x736F_6D65_7073_6575
            v1 = key1 ^ 0x646F_7261_6E64_6F6D
            v2 = key0 ^ 0x6C79_6765_6E65_7261
            v3 = key1 ^ 0x7465_6462_7974_6573
        }

        @inline(__always) mutating func absorb(_ word: UInt64) {
            v3 ^= word
            round()
            round()
            v0 ^= word
        }

        @inline(__always) mutating func finish(byteCount: Int) -> UInt64 {
            absorb(UInt64(byteCount & 0xFF) << 56)
            v2 ^= 0xFF
            round()
            round()
            round()
            round()
            return v0 ^ v1 ^ v2 ^ v3
        }

        @inline(__always) private mutating func round() {
            v0 &+= v1
            v1 = v1 << 13 | v1 >> 51
            v1 ^= v0
            v0 = v0 << 32 | v0 >> 32
            v2 &+= v3
            v3 = v3 << 16 | v3 >> 48
            v3 ^= v2
            v0 &+= v3
            v3 = v3 << 21 | v3 >> 43
            v3 ^= v0
            v2 &+= v1
            v1 = v1 << 17 | v1 >> 47
            v1 ^= v2
            v2 = v2 << 32 | v2 >> 32
        }
    }
}
