import Inet
import Noise
import TestSupport
import Testing

@Suite struct BLAKE2sTests {
    @Test("the digest of abc is that of RFC 7693 appendix B")
    func abc() {
        let digest = BLAKE2s.hash([UInt8](utf8: "abc").span.bytes, RawSpan())
        #expect([UInt8](digest).hex == "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982")
    }

    @Test("the digest of nothing")
    func nothing() {
        #expect([UInt8](BLAKE2s.hash(RawSpan(), RawSpan())).hex == "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9")
    }

    @Test("one value hashes one message after the other, however they are cut")
    func reuse() {
        var context = HashContext(.blake2s)
        let message = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
        let whole = BLAKE2s.hash(message.span.bytes, RawSpan())
        for cut in [0, 1, 63, 64, 65, 128, 299, 300] {
            context.update(message.span.bytes.extracting(0..<cut))
            context.update(message.span.bytes.extracting(cut..<300))
            var digest = [UInt8](repeating: 0, count: 32)
            do {
                var span = digest.mutableSpan
                var bytes = span.mutableBytes
                context.finish(into: &bytes, at: 0)
            }
            #expect(digest == [UInt8](whole))
        }
    }
}
