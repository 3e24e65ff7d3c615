/// Runs the cases of a file.
package enum VectorRunner {
    /// 64 MB: larger files are not read.
    package static let maximumFileSize = 64 << 20
    /// 200,000: cases of one file.
    package static let maximumCases = 200_000

    /// - Parameters:
    ///   - bytes: the file, of a form that its content tells.
    ///   - maximumCases: of this file; at the first one too many the run of it ends with a fault.
    ///   - progress: is told after each case how many are done, of how many.
    package static func run(
        _ bytes: [UInt8], maximumCases: Int = maximumCases, progress: (Int, Int) -> Void = { _, _ in }
    ) -> VectorReport {
        var report = VectorReport(maximumCases: maximumCases)
        guard bytes.count <= maximumFileSize else {
            report.fault = "larger than 64 MB"
            return report
        }
        let start = withoutByteOrderMark(bytes[...]).first { ![0x20, 0x09, 0x0A, 0x0D].contains($0) }
        switch start {
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            do {
                run(try JSONReader.read(bytes), &report, progress)
            } catch {
                report.fault = error.description
            }
        case nil: report.fault = "it is empty"
        default:
            report.format = .noiseText
            do {
                let cases = try NoiseText.read(bytes)
                runNoise(cases, of: cases.count, &report, progress)
            } catch {
                report.fault = error.description
                if !NoiseText.isRecognised(bytes) { report.format = nil }
            }
        }
        if report.fault == nil, report.caseCount == 0 { report.fault = "it holds no case of a known form" }
        return report
    }

    /// What stands behind the mark that some editors put in front of UTF-8.
    static func withoutByteOrderMark(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? bytes.dropFirst(3) : bytes
    }

    private static func run(_ root: JSON, _ report: inout VectorReport, _ progress: (Int, Int) -> Void) {
        if let vectors = root["vectors"]?.array {
            report.format = .noiseJSON
            runNoise(vectors.enumerated().lazy.map { NoiseJSON.read($1, index: $0) }, of: vectors.count, &report, progress)
        } else if WireGuardVectors.isRecognised(root) {
            report.format = .wireGuard
            WireGuardVectors.run(root, &report, progress)
        } else {
            report.fault = "a JSON document of no known form: neither \"vectors\" nor \"handshakes\", \"primitives\" or \"replay_window\""
        }
    }

    private static func runNoise(
        _ cases: some Sequence<NoiseCase.Parsed>, of count: Int, _ report: inout VectorReport, _ progress: (Int, Int) -> Void
    ) {
        for (index, parsed) in cases.enumerated() {
            switch parsed {
            case .good(let vector): report.add(vector.name, vector.run())
            case .skipped(_, let reason): report.add("", .skipped(reason))
            case .bad(let name, let mismatch): report.add(name, .failed(mismatch))
            }
            guard report.fault == nil else { return }
            progress(index + 1, count)
        }
    }
}
