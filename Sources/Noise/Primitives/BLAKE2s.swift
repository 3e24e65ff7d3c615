import Inet

/// BLAKE2s with a 32-byte digest, where WireGuard uses it outside the handshake's own state.
///
/// Source: RFC 7693.
package enum BLAKE2s {
    /// The digest of `first` followed by `second`.
    package static func hash(_ first: RawSpan, _ second: RawSpan) -> Digest {
        var context = HashContext(.blake2s)
        context.update(first)
        context.update(second)
        var digest = Digest()
        var words = digest.words.mutableSpan
        // Integers have no invalid bit pattern.
        var bytes = unsafe words.mutableBytes
        context.finish(into: &bytes, at: 0)
        return digest
    }
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
