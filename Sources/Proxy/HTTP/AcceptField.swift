/// What a client would rather have of the forms that an answer of ours may take: RFC 9110 §12.5.1.
enum AcceptField {
    enum Form: CaseIterable {
        case text, json, html

        fileprivate var type: String {
            switch self {
            case .text: "text/plain"
            case .json: "application/json"
            case .html: "text/html"
            }
        }
    }

    /// The form with the greatest weight, of several the one that is named first. Plain text if none is named; what has the weight 0 only if
    /// all have.
    static func preferred(_ field: String?) -> Form {
        guard let field else { return .text }
        let ranges = HeaderTokens.list(field).compactMap { range($0) }
        let excluded = ranges.filter { $0.weight == 0 }.map(\.type)
        var best = Form.allCases.first { !excluded.contains($0.type) } ?? .text
        var greatest = 0
        for range in ranges where range.weight > greatest {
            guard let form = form(range.type, besides: ranges) else { continue }
            (best, greatest) = (form, range.weight)
        }
        return best
    }

    /// What is named itself has a weight of its own, whatever a wildcard says.
    private static func form(_ type: String, besides ranges: [(type: String, weight: Int)]) -> Form? {
        guard type.hasSuffix("/*") else { return Form.allCases.first { $0.type == type } }
        let prefix = type == "*/*" ? "" : type.dropLast()
        return Form.allCases.first { form in form.type.hasPrefix(prefix) && !ranges.contains { $0.type == form.type } }
    }

    /// Nil without a type, or with a weight that is none.
    private static func range(_ member: String) -> (type: String, weight: Int)? {
        let parts = member.split(separator: ";").map { HeaderTokens.trimmed($0) }
        guard let type = parts.first else { return nil }
        guard let weight = parts.dropFirst().first(where: { $0.hasPrefix("q=") }) else { return (String(type), 1000) }
        return thousandths(weight.dropFirst(2)).map { (String(type), $0) }
    }

    /// RFC 9110 §12.4.2: `0`, `1`, and three digits behind the point at most.
    private static func thousandths(_ text: Substring) -> Int? {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let digits = parts.count > 1 ? parts[1] : ""
        guard parts[0] == "0" || parts[0] == "1", digits.utf8.count <= 3, digits.utf8.allSatisfy(HeaderBytes.isDigit) else { return nil }
        let weight = (Int(parts[0]) ?? 0) * 1000 + (Int((digits + "000").prefix(3)) ?? 0)
        return weight <= 1000 ? weight : nil
    }
}
