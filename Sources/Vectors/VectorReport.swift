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

/// What became of a file.
package struct VectorReport: Equatable, Sendable {
    package struct Case: Equatable, Sendable {
        package var name: String
        package var mismatch: Mismatch
    }

    package var format: VectorFormat?
    package var passed = 0
    package var failures: [Case] = []
    /// Why cases were skipped, and how many for each reason.
    package var skipped: [String: Int] = [:]
    /// Why the file could not be read, or is no vector file.
    package var fault: String?

    /// Nothing was run, or nothing could be, and why.
    package init(fault: String? = nil) { self.fault = fault }

    package var skippedCount: Int { skipped.values.reduce(0, +) }
    package var caseCount: Int { passed + failures.count + skippedCount }
    package var isGood: Bool { fault == nil && failures.isEmpty }

    package mutating func add(_ name: @autoclosure () -> String, _ outcome: Outcome) {
        switch outcome {
        case .passed: passed += 1
        case .failed(let mismatch): failures.append(Case(name: name(), mismatch: mismatch))
        case .skipped(let reason): skipped[reason, default: 0] += 1
        }
    }
}
