import Vectors

/// What `vectors run` has to say of a file.
package struct VectorFileResult {
    package var path: String
    package var report: VectorReport

    package init(path: String, report: VectorReport) {
        self.path = path
        self.report = report
    }

    init(path: String, fault: String) {
        self.init(path: path, report: VectorReport(fault: fault))
    }

    /// A line for each failure that is kept, one that counts the others, one for a fault, and one for the file. Text of the
    /// file is escaped.
    package var lines: [String] {
        let name = LogText.escape(path)
        var lines = failureLines
        if report.failuresLeftOut > 0 { lines.append("\(name): \(report.failuresLeftOut) more failures are left out") }
        if let fault = report.fault { lines.append("\(name): error: \(LogText.escape(fault))") }
        guard report.fault == nil || report.caseCount > 0 else { return lines }
        var line = "\(name): \(report.format?.rawValue ?? "unknown"): \(report.passed) passed, \(report.failed) failed"
        line += ", \(report.skippedCount) skipped"
        if report.skippedCount > 0 {
            let reasons = report.skipped.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
            line += " (\(LogText.escape(reasons.joined(separator: ", "))))"
        }
        return lines + [line]
    }

    private var failureLines: [String] {
        report.failures.map { "\(LogText.escape(path)): \(LogText.escape($0.name)): \(LogText.escape($0.mismatch.description))" }
    }

    package var json: JSON {
        .object([
            JSON.Member("file", .string(path)),
            JSON.Member("format", report.format.map { .string($0.rawValue) } ?? .null),
            JSON.Member("error", report.fault.map { .string($0) } ?? .null),
            JSON.Member("passed", .integer(report.passed)),
            JSON.Member("failed", .integer(report.failed)),
            JSON.Member("skipped", .integer(report.skippedCount)),
            JSON.Member(
                "skipped_reasons",
                .object(report.skipped.sorted { $0.key < $1.key }.map { JSON.Member($0.key, .integer($0.value)) })),
            JSON.Member("failures", .array(report.failures.map(Self.json))),
            JSON.Member("failures_left_out", .integer(report.failuresLeftOut)),
        ])
    }

    private static func json(_ failure: VectorReport.Case) -> JSON {
        var members = [JSON.Member("case", .string(failure.name)), JSON.Member("step", .string(failure.mismatch.step))]
        switch failure.mismatch.detail {
        case .bytes(let offset, let expected, let actual):
            members += [
                JSON.Member("offset", .integer(offset)), JSON.Member("expected", .string(expected)), JSON.Member("actual", .string(actual)),
            ]
        case .value(let expected, let actual):
            members += [JSON.Member("expected", .string(expected)), JSON.Member("actual", .string(actual))]
        case .message(let text): members.append(JSON.Member("message", .string(text)))
        }
        return .object(members)
    }
}

/// The sum over all files, and what the run has left of its bounds.
package struct VectorsSummary {
    /// 2,000,000: cases of one run.
    package static let maximumCases = 2_000_000
    /// 10,000: failures that one run prints.
    package static let maximumFailures = 10_000

    package private(set) var files = 0
    package private(set) var passed = 0
    package private(set) var failed = 0
    package private(set) var skipped = 0
    package private(set) var unusable = 0
    package private(set) var failuresLeftOut = 0
    private var failuresShown = 0

    package init() {}

    package var fileRoom: Int { VectorFiles.maximumFiles - files }
    package var caseRoom: Int { Self.maximumCases - passed - failed - skipped }

    /// Nothing failed, and something was run.
    package var isGood: Bool { failed == 0 && unusable == 0 && passed > 0 }

    /// What is said instead of running `path` and all behind it.
    func isFull(_ path: String) -> VectorFileFault {
        let bounds = "\(VectorFiles.maximumFiles) files or \(Self.maximumCases) cases in a run"
        return VectorFileFault(path: path, reason: "more than \(bounds), this and what follows is not run")
    }

    /// Counts a file and prints what there is to say of it.
    mutating func add(_ result: VectorFileResult, json: Bool) {
        let result = counting(result)
        if json {
            print(result.json.line)
        } else {
            for line in result.lines { print(line) }
        }
    }

    /// Counts a file.
    ///
    /// - Returns: it without the failures that are too many for the run.
    package mutating func counting(_ result: VectorFileResult) -> VectorFileResult {
        var result = result
        result.report.keepFailures(Self.maximumFailures - failuresShown)
        files += 1
        passed += result.report.passed
        failed += result.report.failed
        skipped += result.report.skippedCount
        failuresShown += result.report.failures.count
        failuresLeftOut += result.report.failuresLeftOut
        if result.report.fault != nil { unusable += 1 }
        return result
    }

    func printTotal(json: Bool) { for line in json ? [self.json.line] : lines { print(line) } }

    /// Why a run without a failure is none that says anything; `nil` if something was run.
    private var emptiness: String? {
        passed + failed + unusable == 0 ? "nothing was run: all \(skipped) cases are skipped" : nil
    }

    package var lines: [String] {
        var total = "total: \(files) files, \(passed) passed, \(failed) failed, \(skipped) skipped, \(unusable) unusable"
        if failuresLeftOut > 0 { total += ", \(failuresLeftOut) failures left out above" }
        guard let emptiness else { return [total] }
        return [total, "error: \(emptiness)"]
    }

    package var json: JSON {
        let total: KeyValuePairs = [
            "files": files, "passed": passed, "failed": failed, "skipped": skipped, "unusable": unusable,
            "failures_left_out": failuresLeftOut,
        ]
        let error = JSON.Member("error", emptiness.map { .string($0) } ?? .null)
        return .object([JSON.Member("total", .object(total.map { JSON.Member($0.key, .integer($0.value)) } + [error]))])
    }
}
