/// Writes the text format 0.0.4 of Prometheus. Each family of metrics is begun once; labels come from the configuration and from
/// our own enumerations, never from a request.
///
/// Source: prometheus.io/docs/instrumenting/exposition_formats.
package struct MetricsText: Sendable {
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    package enum Kind: String, Sendable { case counter, gauge, histogram }

    package private(set) var text = ""

    package init() {}

    /// Begins a family.
    package mutating func family(_ name: String, _ kind: Kind, _ help: String) {
        text += "# HELP \(name) \(Self.escape(help, quotes: false))\n# TYPE \(name) \(kind.rawValue)\n"
    }

    /// A sample of the family that was begun last.
    package mutating func sample(_ name: String, _ labels: [(String, String)] = [], _ value: UInt64) {
        sample(name, labels, "\(value)")
    }

    /// A sample in seconds.
    package mutating func sample(_ name: String, _ labels: [(String, String)] = [], nanoseconds: UInt64) {
        sample(name, labels, Self.seconds(nanoseconds))
    }

    private mutating func sample(_ name: String, _ labels: [(String, String)], _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{"
            for (index, (label, value)) in labels.enumerated() {
                if index > 0 { text += "," }
                text += label
                text += "=\""
                text += Self.escape(value, quotes: true)
                text += "\""
            }
            text += "}"
        }
        text += " \(value)\n"
    }

    /// A family of one sample without labels.
    package mutating func single(_ name: String, _ kind: Kind, _ help: String, _ value: UInt64) {
        family(name, kind, help)
        sample(name, [], value)
    }

    /// `0.25`, without needless zeros.
    static func seconds(_ nanoseconds: UInt64) -> String {
        let (whole, part) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        guard part > 0 else { return "\(whole)" }
        return "\(whole)." + String("\(1_000_000_000 + part)".dropFirst().reversed().drop { $0 == "0" }.reversed())
    }

    private static func escape(_ text: String, quotes: Bool) -> String {
        guard text.utf8.contains(where: { $0 == 0x5C || $0 == 0x0A || $0 == 0x22 }) else { return text }
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }
}

/// A part of the process that has something to tell. Asked for each scrape, off the event loops.
package typealias MetricsProvider = @Sendable (inout MetricsText) async -> Void
