/// A JSON document as it stands: members keep their order, numbers their spelling.
package enum JSON: Equatable, Sendable {
    case null
    case bool(Bool)
    /// The text of the number: 64-bit counters must not be rounded.
    case number(String)
    case string(String)
    case array([JSON])
    case object([Member])

    package struct Member: Equatable, Sendable {
        package var name: String
        package var value: JSON

        package init(_ name: String, _ value: JSON) {
            self.name = name
            self.value = value
        }
    }

    /// The member; `nil` if there is none, or this is no object.
    package subscript(name: String) -> JSON? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }

    package var array: [JSON]? {
        if case .array(let elements) = self { elements } else { nil }
    }

    package var string: String? {
        if case .string(let text) = self { text } else { nil }
    }

    package var members: [Member]? {
        if case .object(let members) = self { members } else { nil }
    }

    /// An integer that is written as a number or, because many readers would round it, as a string of digits.
    package var unsigned: UInt64? {
        switch self {
        case .number(let text), .string(let text): UInt64(text)
        case .null, .bool, .array, .object: nil
        }
    }

    package static func hex(_ bytes: [UInt8]) -> JSON { .string(Hex.encode(bytes)) }

    package static func integer(_ value: some FixedWidthInteger) -> JSON { .number(String(value)) }
}

extension JSON {
    /// Lines of the document, indented by two; what holds no objects stands on one line. The same value always gives the same bytes.
    package var document: String {
        var text = ""
        write(to: &text, indent: 0)
        text += "\n"
        return text
    }

    /// The document on one line.
    package var line: String {
        var text = ""
        writeLine(to: &text)
        return text
    }

    private func write(to text: inout String, indent: Int) {
        let inner = String(repeating: "  ", count: indent + 1)
        let outer = String(repeating: "  ", count: indent)
        switch self {
        case .object(let members) where !members.isEmpty:
            text += "{\n"
            for (index, member) in members.enumerated() {
                text += inner
                JSON.string(member.name).writeLine(to: &text)
                text += ": "
                member.value.write(to: &text, indent: indent + 1)
                text += index + 1 < members.count ? ",\n" : "\n"
            }
            text += outer + "}"
        case .array(let elements) where elements.contains { $0.members != nil }:
            text += "[\n"
            for (index, element) in elements.enumerated() {
                text += inner
                element.write(to: &text, indent: indent + 1)
                text += index + 1 < elements.count ? ",\n" : "\n"
            }
            text += outer + "]"
        case .object, .array, .null, .bool, .number, .string:
            writeLine(to: &text)
        }
    }

    private func writeLine(to text: inout String) {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .number(let digits): text += digits
        case .string(let value): Self.quote(value, to: &text)
        case .array(let elements):
            text += "["
            for (index, element) in elements.enumerated() {
                if index > 0 { text += ", " }
                element.writeLine(to: &text)
            }
            text += "]"
        case .object(let members):
            text += "{"
            for (index, member) in members.enumerated() {
                if index > 0 { text += ", " }
                Self.quote(member.name, to: &text)
                text += ": "
                member.value.writeLine(to: &text)
            }
            text += "}"
        }
    }

    private static func quote(_ value: String, to text: inout String) {
        text += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\u{20}"..."\u{7E}": text.unicodeScalars.append(scalar)
            default:
                // Controls, and what a terminal might take for something else, are escaped.
                for unit in String(scalar).utf16 {
                    let digits = String(unit, radix: 16)
                    text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                }
            }
        }
        text += "\""
    }
}
