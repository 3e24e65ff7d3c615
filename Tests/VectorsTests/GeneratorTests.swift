import Testing
import Vectors

@Suite struct GeneratorTests {
    @Test("what is generated passes, whatever the seed", arguments: [0, 1, 42, UInt64.max])
    func passes(seed: UInt64) throws {
        let report = VectorRunner.run(Array(try WireGuardGenerator.document(seed: seed, count: 4).document.utf8))
        #expect(report.failures == [], "seed \(seed)")
        #expect(report.fault == nil)
        #expect(report.passed == 4 * (10 + 1 + 7 + 12) + 4 + 27)
    }

    @Test("a seed always gives the same bytes, and these are they")
    func determinism() throws {
        let first = try WireGuardGenerator.document(seed: 7, count: 2).document
        #expect(try WireGuardGenerator.document(seed: 7, count: 2).document == first)
        #expect(try WireGuardGenerator.document(seed: 8, count: 2).document != first)
        // Two machines agree if both agree with this number.
        #expect(Fixture.fingerprint(first) == "b472f4d52359ff06")
    }

    @Test("the file says that its keys are for tests only, at the top and in every name")
    func warning() throws {
        let root = try WireGuardGenerator.document(seed: 1, count: 3)
        #expect(root["warning"]?.string?.hasPrefix("TEST ONLY") == true)
        let names = try #require(root["handshakes"]?.array).compactMap { $0["name"]?.string }
        #expect(names.count == 3)
        #expect(names.allSatisfy { $0.hasPrefix("TEST ONLY") })
    }

    @Test("every second handshake has a pre-shared key")
    func presharedKeys() throws {
        let handshakes = try #require(try WireGuardGenerator.document(seed: 1, count: 4)["handshakes"]?.array)
        #expect(handshakes.map { $0["psk"] == .null } == [true, false, true, false])
    }

    @Test("the largest file that can be generated can be run", arguments: [0, UInt64.max])
    func largest(seed: UInt64) throws {
        let root = try WireGuardGenerator.document(seed: seed, count: 2)
        let all = WireGuardGenerator.counts.upperBound
        // Only the last packet of a handshake has a length that the seed decides, up to 1,419 bytes: in the file it stands as
        // it is, padded, and sealed.
        let sizes = try #require(root["handshakes"]?.array).map { handshake -> Int in
            let last = handshake["packets"]?.array?.last?["packet"]?.string?.count ?? 0
            return handshake.document.utf8.count + 3 * 2 * (1419 + 16) - 3 * last
        }
        // Each line is four deeper in the file, and the number in the name may be longer.
        let lines = try #require(root["handshakes"]?.array?[0]).document.utf8.count { $0 == 0x0A }
        let largest = try #require(sizes.max()) + 4 * lines + 3
        let head = root.replacing("handshakes", .array([])).document.utf8.count
        #expect(head + all * largest <= VectorRunner.maximumFileSize)
        #expect(largest <= 44_000)

        let values = try #require(root["handshakes"]?.array).map(\.valueCount).max() ?? 0
        #expect(values <= 250)
        #expect(root.valueCount + all * values <= JSONReader.maximumValues)
        #expect(root.valueCount + all * 30 <= VectorRunner.maximumCases)
    }
}

extension JSON {
    /// As the reader counts them.
    fileprivate var valueCount: Int {
        switch self {
        case .object(let members): members.reduce(1) { $0 + $1.value.valueCount }
        case .array(let elements): elements.reduce(1) { $0 + $1.valueCount }
        case .null, .bool, .number, .string: 1
        }
    }
}
