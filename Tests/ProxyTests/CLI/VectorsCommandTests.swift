import ArgumentParser
import FoundationEssentials
import Glibc
import Proxy
import Testing
import Vectors

@Suite struct VectorsCommandTests {
    private let directory = TemporaryDirectory()

    private func write(_ text: String, to name: String) throws { try SystemFiles.create(directory.file(name), Array(text.utf8)) }

    /// The exit code of `kakuremichi vectors ...`.
    private func exitCode(_ arguments: String...) -> Int32 {
        do {
            var command = try KakuremichiCommand.parseAsRoot(["vectors"] + arguments)
            try command.run()
            return 0
        } catch {
            return KakuremichiCommand.exitCode(for: error).rawValue
        }
    }

    @Test("good files end with 0; failures, unreadable, unknown and empty files with 1, a wrong command line with 64")
    func exitCodes() throws {
        #expect(exitCode("generate", "--seed", "3", "--count", "1", "--out", directory.file("good.json")) == 0)
        #expect(exitCode("run", directory.file("good.json")) == 0)
        #expect(exitCode("run", "--json", directory.file("good.json")) == 0)
        // A file that exists is not written over.
        #expect(exitCode("generate", "--seed", "4", "--out", directory.file("good.json")) == 1)

        let good = String(decoding: try SystemFiles.read(directory.file("good.json")).bytes, as: UTF8.self)
        let identifier = "WireGuard v1 zx2c4 Jason@zx2c4.com"
        #expect(good.contains(identifier))
        try write(good.replacing(identifier, with: "WireGuard v2"), to: "failing.json")
        try write("what is this", to: "unknown.json")
        try write(#"{"handshakes": []}"#, to: "empty.json")
        for name in ["failing.json", "unknown.json", "empty.json", "missing.json"] {
            #expect(exitCode("run", directory.file(name)) == 1, "\(name)")
        }
        #expect(exitCode("run", directory.file("good.json"), directory.file("failing.json")) == 1)

        #expect(exitCode("run") == 64)
        #expect(exitCode("generate") == 64)
        #expect(exitCode("generate", "--seed", "-1") == 64)
        #expect(exitCode("generate", "--seed", "1", "--count", "0") == 64)
        #expect(exitCode("generate", "--seed", "1", "--count", "\(WireGuardGenerator.counts.upperBound + 1)") == 64)
    }

    @Test("a run that skips all it finds ends with 1; one good case makes it good")
    func allSkipped() throws {
        let skipped = "handshake=Noise_NN_448_AESGCM_SHA256\n"
        try write(skipped, to: "skipped.txt")
        try write(skipped, to: "more.txt")
        #expect(exitCode("run", directory.file("skipped.txt"), directory.file("more.txt")) == 1)
        #expect(exitCode("run", "--json", directory.file("skipped.txt")) == 1)
        #expect(exitCode("generate", "--seed", "3", "--count", "1", "--out", directory.file("good.json")) == 0)
        #expect(exitCode("run", directory.file("skipped.txt"), directory.file("good.json")) == 0)
    }

    @Test("a sum says that nothing was run because all was skipped, as text and as JSON")
    func nothingRun() {
        var report = VectorReport()
        for _ in 0..<3 { report.add("", .skipped("DH 448 is not supported")) }
        var summary = VectorsSummary()
        _ = summary.counting(VectorFileResult(path: "x", report: report))
        #expect(!summary.isGood)
        #expect(
            summary.lines == [
                "total: 1 files, 0 passed, 0 failed, 3 skipped, 0 unusable", "error: nothing was run: all 3 cases are skipped",
            ])
        #expect(summary.json["total"]?["error"] == .string("nothing was run: all 3 cases are skipped"))
        report.add("", .passed)
        _ = summary.counting(VectorFileResult(path: "x", report: report))
        #expect(summary.isGood)
        #expect(summary.lines.count == 1)
        #expect(summary.json["total"]?["error"] == .null)
    }

    @Test("of many failures the first ones are shown, of a file and of a run; how many are left out is one line")
    func manyFailures() {
        var report = VectorReport()
        report.format = .wireGuard
        for index in 0..<VectorReport.maximumFailures + 7 { report.add("\(index)", .failed(Mismatch("s", "m"))) }
        let result = VectorFileResult(path: "x", report: report)
        #expect(result.lines.count == VectorReport.maximumFailures + 2)
        #expect(result.lines.suffix(2) == ["x: 7 more failures are left out", "x: wireguard: 0 passed, 1007 failed, 0 skipped"])
        #expect(result.json["failed"] == .number("1007"))
        #expect(result.json["failures_left_out"] == .number("7"))

        var summary = VectorsSummary()
        let files = VectorsSummary.maximumFailures / VectorReport.maximumFailures
        for _ in 0..<files { #expect(summary.counting(result).lines.count == VectorReport.maximumFailures + 2) }
        #expect(
            summary.counting(result).lines == ["x: 1007 more failures are left out", "x: wireguard: 0 passed, 1007 failed, 0 skipped"])
        let leftOut = files * 7 + 1007
        #expect(
            summary.lines == [
                "total: \(files + 1) files, 0 passed, \((files + 1) * 1007) failed, 0 skipped, 0 unusable, \(leftOut) failures left out above"
            ])
        #expect(summary.json["total"]?["failures_left_out"] == .number("\(leftOut)"))
    }

    @Test("a file that is not run to its end says so, and what became of its beginning")
    func halfRun() {
        var report = VectorReport(maximumCases: 1)
        report.format = .noiseText
        report.add("", .passed)
        report.add("", .passed)
        #expect(
            VectorFileResult(path: "x", report: report).lines == [
                "x: error: more than 1 cases, the rest is not run", "x: noise-text: 1 passed, 0 failed, 0 skipped",
            ])
    }

    @Test("files and cases are bounded for the run, not for each path")
    func roomOfARun() {
        var summary = VectorsSummary()
        var report = VectorReport()
        for _ in 0..<10 { report.add("", .passed) }
        for _ in 0..<3 { _ = summary.counting(VectorFileResult(path: "x", report: report)) }
        #expect(summary.fileRoom == VectorFiles.maximumFiles - 3)
        #expect(summary.caseRoom == VectorsSummary.maximumCases - 30)
    }

    @Test("of a directory every *.json and *.txt is found, in order; links are not followed, hidden and other files are left out")
    func directories() throws {
        mkdir(directory.file("sub"), 0o700)
        for name in ["b.json", "a.txt", "README.md", ".hidden.json", "sub/c.json"] { try write("x", to: name) }
        symlink("..", directory.file("sub/loop"))
        symlink("b.json", directory.file("link.json"))
        #expect(try VectorFiles.find(directory.path) == ["a.txt", "b.json", "sub/c.json"].map(directory.file))
        #expect(try VectorFiles.find(directory.file("README.md")) == [directory.file("README.md")])
        #expect(try VectorFiles.find("-") == ["-"])
        // As many as the run has room for, or none.
        #expect(try VectorFiles.find(directory.path, limit: 3).count == 3)
        #expect(throws: VectorFileFault.self) { try VectorFiles.find(directory.path, limit: 2) }
    }

    @Test("a directory without vectors, and one that is too deep, are faults")
    func badDirectories() throws {
        #expect(throws: VectorFileFault.self) { try VectorFiles.find(directory.path) }
        var path = directory.path
        for _ in 0...VectorFiles.maximumDepth {
            path += "/d"
            mkdir(path, 0o700)
        }
        #expect(throws: VectorFileFault.self) { try VectorFiles.find(directory.path) }
    }

    @Test("a failure is one line, with its step and byte, and escaped")
    func lines() {
        var report = VectorReport()
        report.format = .noiseText
        report.add("case \u{1B}[2J", .failed(Mismatch("message 1", .bytes(offset: 3, expected: "0a", actual: "0b"))))
        report.add("", .passed)
        report.add("", .skipped("DH not supported"))
        #expect(
            VectorFileResult(path: "f\n.txt", report: report).lines == [
                #"f\u{A}.txt: case \u{1B}[2J: message 1: differs at byte 3: expected 0a, got 0b"#,
                #"f\u{A}.txt: noise-text: 1 passed, 1 failed, 1 skipped (1 DH not supported)"#,
            ])
    }

    @Test("the JSON of a file is one line that other programs read")
    func json() throws {
        struct Line: Decodable, Equatable {
            struct Failure: Decodable, Equatable {
                var `case`: String
                var step: String
                var offset: Int?
                var expected: String?
                var actual: String?
            }
            var file: String
            var format: String?
            var error: String?
            var passed, failed, skipped: Int
            var skippedReasons: [String: Int]
            var failures: [Failure]
            var failuresLeftOut: Int
        }
        var report = VectorReport()
        report.format = .wireGuard
        report.add("c", .failed(Mismatch("s", .bytes(offset: 3, expected: "0a", actual: "0b"))))
        report.add("", .skipped("DH not supported"))
        let text = VectorFileResult(path: "x\"\n", report: report).json.line
        #expect(!text.contains("\n"))
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let line = try decoder.decode(Line.self, from: Data(text.utf8))
        #expect(
            line
                == Line(
                    file: "x\"\n", format: "wireguard", error: nil, passed: 0, failed: 1, skipped: 1,
                    skippedReasons: ["DH not supported": 1],
                    failures: [.init(case: "c", step: "s", offset: 3, expected: "0a", actual: "0b")], failuresLeftOut: 0))
    }
}
