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
}
