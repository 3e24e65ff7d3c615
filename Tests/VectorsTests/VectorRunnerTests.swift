import Testing
import Vectors

/// Every list of a file counts towards the bound of cases, and what is kept of them is bounded.
@Suite struct VectorRunnerTests {
    private func run(_ text: String, maximumCases: Int = VectorRunner.maximumCases) -> VectorReport {
        VectorRunner.run(Array(text.utf8), maximumCases: maximumCases)
    }

    private func zeros(_ count: Int) -> String { Array(repeating: "0", count: count).joined(separator: ",") }

    @Test("more cases than a file may have are a fault, in whatever list they are")
    func cases() throws {
        let handshake = try #require(try JSONReader.read(try Fixture.wireGuard())["handshakes"]?.array?[0])
        func list(_ name: String) -> String {
            let list = JSON.array(Array(repeating: .number("0"), count: 30))
            return JSON.object([JSON.Member("handshakes", .array([handshake.replacing(name, list)]))]).document
        }
        let members = (0..<30).map { "\"m\($0)\": 0" }.joined(separator: ",")
        let files = [
            "{\"replay_window\": [\(zeros(30))]}", "{\"handshakes\": [\(zeros(30))]}", "{\"vectors\": [\(zeros(30))]}",
            "{\"handshakes\": [], \(members)}", "{\"primitives\": {\(members)}}",
            "{\"primitives\": {\"hmac_blake2s\": [\(zeros(30))]}}", "{\"primitives\": {\"tai64n\": [\(zeros(30))]}}",
            "{\"primitives\": {\"padding\": {\"rows\": [\(zeros(30))]}}}", list("packets"), list("must_reject"),
            String(repeating: "handshake=Noise_NN_25519_AESGCM_SHA256\n", count: 30),
        ]
        for file in files {
            let report = run(file, maximumCases: 20)
            #expect(report.fault == "more than 20 cases, the rest is not run", "\(file.prefix(60))")
            #expect(report.caseCount == 20, "\(file.prefix(60))")
            #expect(run(file).fault == nil, "\(file.prefix(60))")
        }
    }

    @Test("the bound of a file holds for millions of entries")
    func millions() {
        for file in ["{\"replay_window\": [\(zeros(1_000_000))]}", "{\"primitives\": {\"padding\": {\"rows\": [\(zeros(1_000_000))]}}}"] {
            let report = run(file)
            #expect(report.caseCount == VectorRunner.maximumCases)
            #expect(report.failed == VectorRunner.maximumCases)
            #expect(report.failures.count == VectorReport.maximumFailures)
            #expect(report.fault != nil)
        }
    }

    @Test("failures beyond the bound are counted and not kept")
    func failures() {
        var report = VectorReport()
        for index in 0..<VectorReport.maximumFailures + 5 { report.add("\(index)", .failed(Mismatch("s", "m"))) }
        report.add("", .passed)
        #expect(report.failed == VectorReport.maximumFailures + 5)
        #expect(report.failures.count == VectorReport.maximumFailures)
        #expect(report.failuresLeftOut == 5)
        #expect(report.caseCount == report.failed + 1)
        report.keepFailures(2)
        #expect(report.failures.map(\.name) == ["0", "1"])
        #expect(report.failuresLeftOut == VectorReport.maximumFailures + 3)
    }

    @Test("reasons to skip beyond the bound are counted together")
    func reasons() {
        var report = VectorReport()
        for index in 0..<VectorReport.maximumReasons + 5 { report.add("", .skipped("reason \(index)")) }
        report.add("", .skipped("reason 0"))
        #expect(report.skipped.count == VectorReport.maximumReasons + 1)
        #expect(report.skipped["reason 0"] == 2)
        #expect(report.skipped[VectorReport.otherReasons] == 5)
        #expect(report.skippedCount == VectorReport.maximumReasons + 6)
    }
}
