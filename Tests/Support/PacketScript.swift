import Inet
import TCPStack

/// A packet script: what a peer sends, what the stack has to answer, and when, in lines of text. `docs/packet-scripts.md`
/// describes the language; `PacketScriptRunner` performs it.
package struct PacketScript: Sendable {
    /// The first comment.
    package let title: String
    package let lines: [Line]

    package struct Line: Sendable {
        package var number: Int
        package var text: String
        /// The only family in which the line counts.
        var family: IPAddress.Family?
        var time: Time?
        var words: [String]
        /// What a `repeat` holds.
        var block: [Line] = []

        /// In the turn 0, 1, 2... of a `repeat`, `7+2` is 7, 9, 11...
        func stepped(_ turn: Int) -> Line {
            var line = self
            line.words = words.map { word in
                guard word.contains("+") else { return word }
                return word.split(separator: ":", omittingEmptySubsequences: false).map { number in
                    let parts = number.split(separator: "+").compactMap { Int($0) }
                    return parts.count == 2 ? String(parts[0] + turn * parts[1]) : String(number)
                }.joined(separator: ":")
            }
            return line
        }
    }

    /// When a line has its turn: since the script's zero, or since the line before.
    struct Time: Sendable {
        var isRelative: Bool
        var earliest: Duration
        var latest: Duration
    }

    package struct Fault: Error, CustomStringConvertible {
        package let description: String
    }

    package init(_ text: String) throws(Fault) {
        let rows = text.split(separator: "\n", omittingEmptySubsequences: false)
        let comment = rows.first { $0.hasPrefix("#") }
        title = comment.map { String($0.drop { $0 == "#" || $0 == " " }) } ?? ""
        var open: [Line] = []
        var done: [[Line]] = [[]]
        for (index, row) in rows.enumerated() {
            var words = row.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" }).map(String.init)
            if let end = words.firstIndex(where: { $0.hasPrefix("#") }) { words.removeSubrange(end...) }
            guard !words.isEmpty else { continue }
            var line = Line(number: index + 1, text: String(row), words: [])
            if let family = ["v4": IPAddress.Family.v4, "v6": .v6][words[0]] {
                line.family = family
                words.removeFirst()
            }
            if let first = words.first?.first, first == "+" || first.isNumber {
                guard let time = Time(words[0]) else { throw Fault(description: "line \(line.number): no time: \(words[0])") }
                line.time = time
                words.removeFirst()
            }
            line.words = words
            switch words.first {
            case "repeat":
                open.append(line)
                done.append([])
            case "end":
                guard var start = open.popLast(), let block = done.popLast() else {
                    throw Fault(description: "line \(line.number): end without repeat")
                }
                start.block = block
                done[done.count - 1].append(start)
            case nil: throw Fault(description: "line \(line.number): nothing to do")
            default: done[done.count - 1].append(line)
            }
        }
        guard open.isEmpty else { throw Fault(description: "repeat without end") }
        lines = done[0]
    }
}

extension PacketScript.Time {
    /// `1.5`, `+0.040`, `+0.040..0.060`, `+1~0.01`.
    init?(_ word: String) {
        isRelative = word.hasPrefix("+")
        let text = isRelative ? word.dropFirst() : word[...]
        if let dots = text.firstRange(of: "..") {
            guard let from = Duration(script: text[..<dots.lowerBound]), let to = Duration(script: text[dots.upperBound...]) else {
                return nil
            }
            (earliest, latest) = (from, to)
        } else if let tilde = text.firstIndex(of: "~") {
            guard let middle = Duration(script: text[..<tilde]), let slack = Duration(script: text[text.index(after: tilde)...]) else {
                return nil
            }
            (earliest, latest) = (middle - slack, middle + slack)
        } else {
            guard let exact = Duration(script: text) else { return nil }
            (earliest, latest) = (exact, exact)
        }
    }
}

extension Duration {
    /// Seconds, or a number with `us`, `ms`, `s`, `m` or `h`.
    init?(script text: some StringProtocol) {
        let digits = text.prefix { $0.isNumber || $0 == "." }
        guard let value = Double(String(digits)) else { return nil }
        let units: [String: Double] = ["us": 1e-6, "ms": 1e-3, "": 1, "s": 1, "m": 60, "h": 3600]
        guard let unit = units[String(text.dropFirst(digits.count))] else { return nil }
        self = .nanoseconds(Int64((value * unit * 1e9).rounded()))
    }
}

/// A segment as a script writes it: what to send, or what is expected. What is not named is not compared.
struct SegmentForm {
    /// A field with one number.
    enum Field: String, CaseIterable {
        case ack, win, mss, ws, sackOK, ts, ecr, urg, len
    }

    /// `nil` is any.
    var flags: TCPFlags?
    var seq: NumberPattern?
    /// Behind the text; the same as `seq` for none.
    var end: NumberPattern?
    var numbers: [Field: NumberPattern] = [:]
    var absent: Set<Field> = []
    /// `nil` is not compared, empty is `no sack`.
    var sack: [Range<UInt32>]?
    /// ECN bits of the IP header.
    var ecn: UInt8?
    /// So many segments of one length share the text.
    var count = 1
    /// What only a sender says: `fill 7`, `bad checksum`, `from 1.2.3.4`, `fragment 0:8`.
    var extras: [String: String] = [:]

    /// - Parameter words: behind `>` or `<`.
    init(_ words: some Collection<String>) throws(PacketScript.Fault) {
        var rest = Array(words)[...]
        guard let names = rest.popFirst() else { throw PacketScript.Fault(description: "no flags") }
        flags = try Self.flags(names)
        if let first = rest.first, first == "*" || first.first?.isNumber == true {
            rest.removeFirst()
            let halves = first.split(separator: ":", maxSplits: 1).map(String.init)
            seq = try NumberPattern(halves[0])
            end = halves.count == 2 ? try NumberPattern(halves[1]) : seq
        }
        while let word = rest.popFirst() {
            switch word {
            case "no":
                guard let name = rest.popFirst() else { throw PacketScript.Fault(description: "no what?") }
                if name == "sack" {
                    sack = []
                } else if let field = Field(rawValue: name) {
                    absent.insert(field)
                } else {
                    throw PacketScript.Fault(description: "no such field: \(name)")
                }
            case "ts" where rest.first.flatMap(\.first).map { $0 != "*" && !$0.isNumber } ?? true: numbers[.ts] = .any
            case "sackOK": numbers[.sackOK] = .exactly(1)
            case "sack":
                sack = try (rest.popFirst() ?? "").split(separator: ",").map { block throws(PacketScript.Fault) in
                    let ends = block.split(separator: "-").compactMap { UInt32($0) }
                    guard ends.count == 2, ends[0] <= ends[1] else { throw PacketScript.Fault(description: "no SACK block: \(block)") }
                    return ends[0]..<ends[1]
                }
            case "not-ect", "ect1", "ect0", "ce": ecn = UInt8(["not-ect", "ect1", "ect0", "ce"].firstIndex(of: word) ?? 0)
            case "bad", "fill", "from", "to", "fragment", "id", "opt":
                extras[word] = rest.popFirst() ?? ""
                // `bad offset 3`
                if word == "bad", let value = rest.first, Int(value) != nil {
                    extras["value"] = value
                    rest.removeFirst()
                }
            default:
                if let field = Field(rawValue: word) {
                    numbers[field] = try NumberPattern(rest.popFirst() ?? "")
                } else if word.hasPrefix("x"), let times = Int(word.dropFirst()), times > 0 {
                    count = times
                } else {
                    throw PacketScript.Fault(description: "not understood: \(word)")
                }
            }
        }
    }

    /// PSH, ECE and CWR are compared only where they are named: see `Segment.differs`.
    private static func flags(_ names: String) throws(PacketScript.Fault) -> TCPFlags? {
        if names == "*" { return nil }
        let letters: [Character: TCPFlags] = [
            "S": .syn, "F": .fin, "R": .rst, "P": .psh, "A": .ack, "U": .urg, "E": .ece, "C": .cwr, ".": [],
        ]
        var flags: TCPFlags = []
        for name in names {
            guard let flag = letters[name] else { throw PacketScript.Fault(description: "no such flag: \(name)") }
            flags.insert(flag)
        }
        return flags
    }
}

/// What a number has to be: `7`, `*`, `>=7`, `<=7`, `7..9`.
enum NumberPattern: Equatable {
    case any
    case exactly(UInt32)
    case within(ClosedRange<UInt32>)

    init(_ word: String) throws(PacketScript.Fault) {
        func number(_ text: some StringProtocol) throws(PacketScript.Fault) -> UInt32 {
            guard let value = UInt32(text) else { throw PacketScript.Fault(description: "no number: \(word)") }
            return value
        }
        if word == "*" {
            self = .any
        } else if word.hasPrefix(">=") {
            self = .within(try number(word.dropFirst(2))...UInt32.max)
        } else if word.hasPrefix("<=") {
            self = .within(0...(try number(word.dropFirst(2))))
        } else if let dots = word.firstRange(of: "..") {
            let (low, high) = (try number(word[..<dots.lowerBound]), try number(word[dots.upperBound...]))
            guard low <= high else { throw PacketScript.Fault(description: "no range: \(word)") }
            self = .within(low...high)
        } else {
            self = .exactly(try number(word))
        }
    }

    func matches(_ number: UInt32) -> Bool {
        switch self {
        case .any: true
        case .exactly(let value): value == number
        case .within(let range): range.contains(number)
        }
    }

    /// The number, of a field that is sent.
    var value: UInt32? { if case .exactly(let value) = self { value } else { nil } }
}
