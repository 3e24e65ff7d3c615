/// Compares what a file says with what was computed, member by member in the order in which things are computed, so that
/// the first difference is the first step that went wrong.
enum JSONComparison {
    /// - Throws: the first difference. A member that one side lacks is one.
    static func compare(_ path: String, file: JSON, computed: JSON) throws(Mismatch) {
        switch computed {
        case .object(let members):
            guard let found = file.members else { throw Mismatch(path, "not an object") }
            let title = computed["step"]?.string.map { "\(path) (\($0))" } ?? path
            for member in members {
                guard let value = file[member.name] else { throw Mismatch("\(title).\(member.name)", "missing") }
                try compare("\(title).\(member.name)", file: value, computed: member.value)
            }
            for member in found where computed[member.name] == nil {
                throw Mismatch("\(title).\(Shown.cut(member.name))", "unknown field")
            }
        case .array(let elements):
            guard let found = file.array else { throw Mismatch(path, "not an array") }
            for (index, element) in elements.enumerated() {
                guard index < found.count else { break }
                try compare("\(path)[\(index)]", file: found[index], computed: element)
            }
            guard found.count == elements.count else {
                throw Mismatch(path, .value(expected: "\(found.count) elements", actual: "\(elements.count)"))
            }
        case .string(let text): try compareText(path, file, text)
        case .number:
            guard file.unsigned == computed.unsigned else { throw Mismatch(path, .value(expected: shown(file), actual: shown(computed))) }
        case .null, .bool:
            guard file == computed else { throw Mismatch(path, .value(expected: shown(file), actual: shown(computed))) }
        }
    }

    private static func compareText(_ path: String, _ file: JSON, _ computed: String) throws(Mismatch) {
        guard let text = file.string else { throw Mismatch(path, "not a string") }
        guard text != computed else { return }
        guard let expected = Hex.decode(text), let actual = Hex.decode(computed) else {
            throw Mismatch(path, .value(expected: shown(file), actual: Shown.cut(computed)))
        }
        // Capital digits are the same bytes.
        if let mismatch = Mismatch(path, expected: expected, actual: actual) { throw mismatch }
    }

    static func shown(_ value: JSON) -> String {
        switch value {
        case .null: "null"
        case .bool(let value): value ? "true" : "false"
        case .number(let text), .string(let text): Shown.cut(text)
        case .array: "an array"
        case .object: "an object"
        }
    }
}
