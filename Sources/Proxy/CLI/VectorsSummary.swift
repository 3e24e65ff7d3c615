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

    /// A line for each failure, and one for the file. Text of the file is escaped.
    package var lines: [String] {
        let name = LogText.escape(path)
        if let fault = report.fault { return failureLines + ["\(name): error: \(LogText.escape(fault))"] }
        var line = "\(name): \(report.format?.rawValue ?? "unknown"): \(report.passed) passed, \(report.failures.count) failed"
        line += ", \(report.skippedCount) skipped"
        if report.skippedCount > 0 {
            let reasons = report.skipped.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
            line += " (\(LogText.escape(reasons.joined(separator: ", "))))"
        }
        return failureLines + [line]
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
            JSON.Member("failed", .integer(report.failures.count)),
            JSON.Member("skipped", .integer(report.skippedCount)),
            JSON.Member(
                "skipped_reasons",
                .object(report.skipped.sorted { $0.key < $1.key }.map { JSON.Member($0.key, .integer($0.value)) })),
            JSON.Member("failures", .array(report.failures.map(Self.json))),
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

/// The sum over all files.
struct VectorsSummary {
    private(set) var files = 0
    private(set) var passed = 0
    private(set) var failed = 0
    private(set) var skipped = 0
    private(set) var unusable = 0

    /// Nothing failed, and something was run.
    var isGood: Bool { failed == 0 && unusable == 0 && files > 0 }

    mutating func add(_ result: VectorFileResult, json: Bool) {
        files += 1
        passed += result.report.passed
        failed += result.report.failures.count
        skipped += result.report.skippedCount
        if result.report.fault != nil { unusable += 1 }
        if json {
            print(result.json.line)
        } else {
            for line in result.lines { print(line) }
        }
    }

    func printTotal(json: Bool) {
        guard json else {
            return print("total: \(files) files, \(passed) passed, \(failed) failed, \(skipped) skipped, \(unusable) unusable")
        }
        let total: KeyValuePairs = ["files": files, "passed": passed, "failed": failed, "skipped": skipped, "unusable": unusable]
        print(JSON.object([JSON.Member("total", .object(total.map { JSON.Member($0.key, .integer($0.value)) }))]).line)
    }
}
