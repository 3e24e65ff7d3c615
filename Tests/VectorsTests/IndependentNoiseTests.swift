import Testing
import Vectors

/// Vectors that other implementations wrote; they are the proof that ours does not agree only with itself.
@Suite struct IndependentNoiseTests {
    private func expectAllPass(_ bytes: [UInt8], _ format: VectorFormat, _ count: Int) {
        let report = VectorRunner.run(bytes)
        #expect(report.failures == [])
        #expect(report.fault == nil)
        #expect(report.format == format)
        #expect(report.skipped == [:])
        #expect(report.passed == count)
    }

    @Test("flynn/noise's eight cases pass")
    func flynn() throws { expectAllPass(try Fixture.noiseText(), .noiseText, 8) }

    @Test("all 1,920 of flynn/noise's cases pass", .enabled(if: Fixture.hasDebian, "Debian's file is not installed"))
    func debian() throws { expectAllPass(try Fixture.debian(), .noiseText, 1920) }

    @Test("dissononce's cases pass")
    func dissononce() throws { expectAllPass(try Fixture.noiseJSON(), .noiseJSON, 89) }

    @Test("dissononce's cases are of every pattern, with and without preshared keys, and of every cipher and hash")
    func coverage() throws {
        let root = try JSONReader.read(try Fixture.noiseJSON())
        #expect(root["warning"]?.string?.hasPrefix("TEST ONLY") == true)
        let names = try #require(root["vectors"]?.array).compactMap { $0["protocol_name"]?.string?.split(separator: "_") }
        let patterns = Set(names.map { String($0[1]) })
        for pattern in Self.patterns {
            #expect(patterns.contains(pattern), "\(pattern)")
            #expect(patterns.contains { $0.hasPrefix("\(pattern)psk") }, "\(pattern) with a preshared key")
        }
        #expect(patterns.count { $0.contains("+") } == 12)
        #expect((0...4).allSatisfy { position in patterns.contains { $0.contains("psk\(position)") } })
        let functions = Set(names.map { $0[3] + " " + $0[4] })
        #expect(functions.count == 2 * 4)
    }

    /// Noise §7.4, §7.5 and §18.1.
    private static let patterns = [
        "N", "K", "X",
        "NN", "NK", "NX", "KN", "KK", "KX", "XN", "XK", "XX", "IN", "IK", "IX",
        "NK1", "NX1", "X1N", "X1K", "XK1", "X1K1", "X1X", "XX1", "X1X1",
        "K1N", "K1K", "KK1", "K1K1", "K1X", "KX1", "K1X1", "I1N", "I1K", "IK1", "I1K1", "I1X", "IX1", "I1X1",
    ]
}
