import FoundationEssentials
import FuzzTargets
import Testing

@Suite struct CorpusTests {
    /// `Fuzz/Corpus`, next to `Tests`.
    static let corpus =
        String(#filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")) + "/Fuzz/Corpus"

    static func files(of target: FuzzTarget) throws -> [(name: String, bytes: [UInt8])] {
        let directory = "\(corpus)/\(target.rawValue)"
        return try FileManager.default.contentsOfDirectory(atPath: directory).sorted().map { name in
            (name, Array(try #require(FileManager.default.contents(atPath: "\(directory)/\(name)"))))
        }
    }

    /// A trap ends the test run; that is how this fails.
    @Test("every input that was ever worth keeping passes through its target", arguments: FuzzTarget.allCases)
    func replay(target: FuzzTarget) throws {
        let files = try Self.files(of: target)
        #expect(files.count >= 4)
        #expect(files.reduce(0) { $0 + $1.bytes.count } < 200_000)
        for file in files { target.run(file.bytes) }
    }

    @Test("and so does what is near to it", arguments: FuzzTarget.allCases)
    func mutations(target: FuzzTarget) throws {
        var generator = SplitMix(state: 42)
        for file in try Self.files(of: target) {
            for _ in 0..<40 {
                var bytes = file.bytes
                for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
                    let offset = Int.random(in: bytes.indices, using: &generator)
                    switch UInt8.random(in: 0..<4, using: &generator) {
                    case 0: bytes[offset] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                    case 1: bytes[offset] = UInt8.random(in: 0...255, using: &generator)
                    case 2: bytes.removeLast(bytes.count - offset)
                    default: bytes.insert(contentsOf: bytes[offset...].prefix(20), at: offset)
                    }
                }
                target.run(bytes)
            }
        }
    }
}

/// Repeatable.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
