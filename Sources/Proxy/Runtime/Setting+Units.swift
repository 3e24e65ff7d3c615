import NIOCore

/// Durations and sizes, as configuration writes them.
extension Setting {
    /// `500ms`, `10s`, `2m` or `1h`.
    package func duration(in range: ClosedRange<TimeAmount>) throws(ConfigurationFault) -> TimeAmount {
        let expected = "a duration from \(Self.text(range.lowerBound)) to \(Self.text(range.upperBound)), such as \"10s\" or \"500ms\""
        let text = try string(expected)
        guard let (number, unit) = Self.split(text), let nanoseconds = Self.durationUnits.first(where: { $0.name == unit })?.size,
            case (let product, let overflow) = number.multipliedReportingOverflow(by: Int(nanoseconds)), !overflow
        else { throw fault("\(Self.quoted(text)) is not valid", fix: "write \(expected)") }
        let amount = TimeAmount.nanoseconds(Int64(product))
        guard range.contains(amount) else { throw fault("\(Self.quoted(text)) is out of range", fix: "write \(expected)") }
        return amount
    }

    /// Bytes: `16384`, `16KiB` or `1MiB`.
    package func size(in range: ClosedRange<Int>) throws(ConfigurationFault) -> Int {
        let expected = "a size from \(Self.sizeText(range.lowerBound)) to \(Self.sizeText(range.upperBound)), such as 16384 or \"16KiB\""
        if case .toml(let value) = value, case .integer = value.kind { return try integer(in: range) }
        let text = try string(expected)
        guard let (number, unit) = Self.split(text), let factor = unit.isEmpty ? 1 : Self.sizeUnits.first(where: { $0.name == unit })?.size,
            case (let bytes, let overflow) = number.multipliedReportingOverflow(by: factor), !overflow
        else { throw fault("\(Self.quoted(text)) is not valid", fix: "write \(expected)") }
        guard range.contains(bytes) else { throw fault("\(Self.quoted(text)) is out of range", fix: "write \(expected)") }
        return bytes
    }

    /// Whether it says that there shall be none.
    package var isOff: Bool { (try? string("")) == "off" }

    /// Digits and what is behind them.
    private static func split(_ text: String) -> (number: Int, unit: String)? {
        let digits = text.prefix { $0.isASCII && $0.isWholeNumber }
        guard let number = Int(digits) else { return nil }
        return (number, String(text[digits.endIndex...]))
    }

    static func text(_ amount: TimeAmount) -> String {
        let unit = durationUnits.first { amount.nanoseconds % $0.size == 0 } ?? (name: "ns", size: 1)
        return "\(amount.nanoseconds / unit.size)\(unit.name)"
    }

    private static func sizeText(_ bytes: Int) -> String {
        guard bytes > 0, let unit = sizeUnits.first(where: { bytes % $0.size == 0 }) else { return "\(bytes)" }
        return "\(bytes / unit.size)\(unit.name)"
    }

    /// The largest first.
    private static let durationUnits: [(name: String, size: Int64)] = [
        ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000),
    ]
    private static let sizeUnits: [(name: String, size: Int)] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
}
