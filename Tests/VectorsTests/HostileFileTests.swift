import Testing
import Vectors

/// Files that are damaged on purpose: whatever they say, they are judged, and nothing traps.
@Suite struct HostileFileTests {
    private struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }

    /// Some bytes are turned over, cut out, doubled or replaced by what breaks parsers.
    private func mutate(_ bytes: [UInt8], _ random: inout Generator) -> [UInt8] {
        var bytes = bytes
        let pieces = ["-1", "18446744073709551616", "[", "{", "\"", "null", "=", "\n", "\\u0000", "99999999999999999999999", "ff", ""]
        for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
            let offset = Int.random(in: 0..<bytes.count, using: &random)
            let end = min(bytes.count, offset + Int.random(in: 0...80, using: &random))
            switch Int.random(in: 0..<4, using: &random) {
            case 0: bytes[offset] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 1: bytes.removeSubrange(offset..<end)
            case 2: bytes.insert(contentsOf: bytes[offset..<end], at: offset)
            default: bytes.replaceSubrange(offset..<end, with: Array((pieces.randomElement(using: &random) ?? "").utf8))
            }
        }
        return bytes
    }

    @Test("a damaged WireGuard file is judged", arguments: 0..<8)
    func wireGuard(seed: UInt64) throws {
        let root = try JSONReader.read(try Fixture.wireGuard())
        let handshake = try #require(root["handshakes"]?.array?[1])
        let small = JSON.object(
            [JSON.Member("handshakes", .array([handshake]))] + (root.members ?? []).filter { $0.name != "handshakes" })
        let bytes = Array(small.document.utf8)
        var random = Generator(state: seed)
        for round in 0..<25 {
            let mutated = mutate(bytes, &random)
            let report = VectorRunner.run(mutated)
            #expect(report.fault != nil || report.caseCount > 0, "seed \(seed), round \(round)")
        }
    }

    @Test("a damaged Noise text is judged", arguments: 0..<8)
    func noiseText(seed: UInt64) throws {
        let bytes = try Fixture.noiseText()
        var random = Generator(state: seed)
        for round in 0..<50 {
            let report = VectorRunner.run(mutate(bytes, &random))
            #expect(report.fault != nil || report.caseCount > 0, "seed \(seed), round \(round)")
        }
    }

    @Test("a damaged Noise JSON is judged", arguments: 0..<4)
    func noiseJSON(seed: UInt64) throws {
        let vectors = try ["XX", "N", "XKpsk1+psk2+psk3"].map(Fixture.noiseCase)
        let bytes = Array(JSON.object([JSON.Member("vectors", .array(vectors))]).document.utf8)
        var random = Generator(state: seed)
        for round in 0..<100 {
            let report = VectorRunner.run(mutate(bytes, &random))
            #expect(report.fault != nil || report.caseCount > 0, "seed \(seed), round \(round)")
        }
    }

    @Test("numbers and lengths at their ends are refused, not computed with")
    func ends() throws {
        func run(_ text: String) -> VectorReport { VectorRunner.run(Array(text.utf8)) }
        #expect(!run(#"{"primitives": {"padding": {"columns": [], "rows": [[18446744073709551615, 1, 0], [-1, 0, 0], [0], 7]}}}"#).isGood)
        #expect(
            !run(#"{"primitives": {"tai64n": [{"unix_seconds": 18446744073709551615, "nanoseconds": 4294967295, "label": ""}]}}"#).isGood)
        #expect(!run(#"{"primitives": {"mac_blake2s_128": [{"key": "", "data": "", "mac": ""}]}}"#).isGood)
        #expect(!run(#"{"primitives": {"hchacha20": [{"key": "00", "nonce": "00", "subkey": ""}]}}"#).isGood)
        #expect(!run(#"{"replay_window": [{"note": "", "sequence": [["18446744073709551615", true], ["-1", true]]}]}"#).isGood)
        #expect(!run(#"{"replay_window": [7, null, {"sequence": 7}], "handshakes": [null, {}, 7]}"#).isGood)
    }

    @Test("a file above the limit is not looked at")
    func tooLarge() {
        let report = VectorRunner.run([UInt8](repeating: 0x20, count: VectorRunner.maximumFileSize + 1))
        #expect(report.fault == "larger than 64 MB")
    }
}
