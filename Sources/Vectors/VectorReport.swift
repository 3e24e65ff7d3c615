/// Where what we compute leaves what a vector says.
package struct Mismatch: Error, Equatable, Sendable {
    /// The step of the case: a message, a field, an operation of the handshake.
    package var step: String
    package var detail: Detail

    package enum Detail: Equatable, Sendable {
        /// The first byte that differs, and what stands there on both sides, cut.
        case bytes(offset: Int, expected: String, actual: String)
        /// Values that are no byte strings.
        case value(expected: String, actual: String)
        /// The vector itself is damaged, or a step that should work does not.
        case message(String)
    }

    package init(_ step: String, _ detail: Detail) {
        self.step = step
        self.detail = detail
    }

    package init(_ step: String, _ message: String) { self.init(step, .message(message)) }

    /// Bytes of each side that are shown.
    static let shownBytes = 16

    /// `nil` if both are the same.
    package init?(_ step: String, expected: [UInt8], actual: [UInt8]) {
        guard expected != actual else { return nil }
        let common = min(expected.count, actual.count)
        let offset = (0..<common).first { expected[$0] != actual[$0] } ?? common
        self.init(step, .bytes(offset: offset, expected: Self.cut(expected, at: offset), actual: Self.cut(actual, at: offset)))
    }

    private static func cut(_ bytes: [UInt8], at offset: Int) -> String {
        let rest = bytes[min(offset, bytes.count)...]
        if rest.isEmpty { return "nothing (\(bytes.count) bytes)" }
        return Hex.encode(rest.prefix(shownBytes)) + (rest.count > shownBytes ? "..." : "")
    }

    package var description: String {
        switch detail {
        case .bytes(let offset, let expected, let actual): "\(step): differs at byte \(offset): expected \(expected), got \(actual)"
        case .value(let expected, let actual): "\(step): expected \(expected), got \(actual)"
        case .message(let text): "\(step): \(text)"
        }
    }
}

/// How one case ended.
package enum Outcome: Equatable, Sendable {
    case passed
    case failed(Mismatch)
    /// It asks for something that is not there; it is never counted as passed.
    case skipped(String)
}

/// What a file held, by its content.
package enum VectorFormat: String, Sendable, CaseIterable {
    case noiseText = "noise-text"
    case noiseJSON = "noise-json"
    case wireGuard = "wireguard"
}

/// What became of a file. However many cases it has, what is kept of them is bounded.
package struct VectorReport: Equatable, Sendable {
    package struct Case: Equatable, Sendable {
        package var name: String
        package var mismatch: Mismatch
    }

    /// 1,000: failures of one file that are kept; more are only counted.
    package static let maximumFailures = 1_000
    /// 100: different reasons to skip that are kept; more are counted together.
    package static let maximumReasons = 100
    package static let otherReasons = "other reasons"

    package var format: VectorFormat?
    package private(set) var passed = 0
    /// All failed cases, kept or not.
    package private(set) var failed = 0
    package private(set) var failures: [Case] = []
    /// Why cases were skipped, and how many for each reason.
    package private(set) var skipped: [String: Int] = [:]
    package private(set) var skippedCount = 0
    /// Why the file could not be read, is no vector file, or was not run to its end.
    package var fault: String?

    private let maximumCases: Int

    /// Nothing was run, or nothing could be, and why.
    ///
    /// - Parameter maximumCases: how many cases may be added; the next one is a fault.
    package init(fault: String? = nil, maximumCases: Int = VectorRunner.maximumCases) {
        self.fault = fault
        self.maximumCases = maximumCases
    }

    package var caseCount: Int { passed + failed + skippedCount }
    package var isGood: Bool { fault == nil && failed == 0 }
    /// Failures that are counted and not kept.
    package var failuresLeftOut: Int { failed - failures.count }

    package mutating func add(_ name: @autoclosure () -> String, _ outcome: Outcome) {
        guard caseCount < maximumCases else {
            fault = fault ?? "more than \(maximumCases) cases, the rest is not run"
            return
        }
        switch outcome {
        case .passed: passed += 1
        case .failed(let mismatch):
            failed += 1
            if failures.count < Self.maximumFailures { failures.append(Case(name: name(), mismatch: mismatch)) }
        case .skipped(let reason):
            skippedCount += 1
            let isKept = skipped[reason] != nil || skipped.count < Self.maximumReasons
            skipped[isKept ? reason : Self.otherReasons, default: 0] += 1
        }
    }

    /// Keeps only the first failures, for a run that has shown enough of them.
    package mutating func keepFailures(_ count: Int) { failures = Array(failures.prefix(count)) }
}
