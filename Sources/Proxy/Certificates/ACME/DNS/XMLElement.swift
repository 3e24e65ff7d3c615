/// A document as Route 53 sends them: elements and text. Attributes, comments and processing instructions are skipped; whatever
/// has a document type is refused, and with it every entity of its own.
package struct XMLElement: Equatable, Sendable {
    /// Without a prefix.
    package var name: String
    /// Its own text, without blanks around it.
    package var text = ""
    package var children: [XMLElement] = []

    /// Nil if it is not well-formed as far as this looks, or over a bound.
    package static func read(_ bytes: [UInt8]) -> XMLElement? {
        guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
        var rest = text.utf8[...]
        var open: [XMLElement] = []
        var root: XMLElement?
        var count = 0
        while let start = rest.firstIndex(of: UInt8(ascii: "<")) {
            if let last = open.indices.last {
                guard let piece = unescape(Substring(rest[..<start])) else { return nil }
                open[last].text += piece
            }
            rest = rest[start...].dropFirst()
            if rest.starts(with: "?".utf8) {
                guard let end = Substring(rest).firstRange(of: "?>") else { return nil }
                rest = rest[end.upperBound...]
                continue
            }
            if rest.starts(with: "!--".utf8) {
                guard let end = Substring(rest).firstRange(of: "-->") else { return nil }
                rest = rest[end.upperBound...]
                continue
            }
            guard let end = rest.firstIndex(of: UInt8(ascii: ">")), rest.first != UInt8(ascii: "!") else { return nil }
            let tag = Substring(rest[..<end])
            rest = rest[end...].dropFirst()
            count += 1
            guard count <= maximumElements else { return nil }
            if tag.hasPrefix("/") {
                guard var element = open.popLast(), element.name == localName(tag.dropFirst()) else { return nil }
                element.text = KeyFiles.trimmed(element.text)
                if let last = open.indices.last { open[last].children.append(element) } else { root = element }
            } else {
                let isEmpty = tag.hasSuffix("/")
                let element = XMLElement(name: localName(isEmpty ? tag.dropLast() : tag))
                guard root == nil, !element.name.isEmpty, open.count < maximumDepth else { return nil }
                if !isEmpty {
                    open.append(element)
                } else if let last = open.indices.last {
                    open[last].children.append(element)
                } else {
                    root = element
                }
            }
        }
        return open.isEmpty ? root : nil
    }

    /// The first child of this name.
    package func first(_ name: String) -> XMLElement? { children.first { $0.name == name } }
    package func all(_ name: String) -> [XMLElement] { children.filter { $0.name == name } }

    /// The first element of this name, however deep.
    package func descendant(_ name: String) -> XMLElement? {
        for child in children {
            if child.name == name { return child }
            if let found = child.descendant(name) { return found }
        }
        return nil
    }

    /// Text of a document of our own.
    package static func escape(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
    }

    private static func localName(_ tag: Substring) -> String {
        let name = tag.prefix { !$0.isWhitespace }
        return String(name.split(separator: ":").last ?? "")
    }

    /// XML 1.0 §4.1, §4.6.
    private static func unescape(_ text: Substring) -> String? {
        guard text.utf8.contains(UInt8(ascii: "&")) else { return String(text) }
        var result = ""
        var rest = text
        while let start = rest.firstIndex(of: "&") {
            result += rest[..<start]
            guard let end = rest[start...].prefix(12).firstIndex(of: ";") else { return nil }
            let name = rest[start..<end].dropFirst()
            switch name {
            case "amp": result += "&"
            case "lt": result += "<"
            case "gt": result += ">"
            case "quot": result += "\""
            case "apos": result += "'"
            default:
                let isHexadecimal = name.hasPrefix("#x")
                guard name.hasPrefix("#"), let code = UInt32(name.dropFirst(isHexadecimal ? 2 : 1), radix: isHexadecimal ? 16 : 10),
                    let scalar = Unicode.Scalar(code)
                else { return nil }
                result.unicodeScalars.append(scalar)
            }
            rest = rest[end...].dropFirst()
        }
        return result + rest
    }

    private static let maximumDepth = 16
    /// Opening and closing tags.
    private static let maximumElements = 20_000
}
