/// Reads TOML 1.0 documents, all but dates: tables, arrays of tables, dotted keys, inline tables, strings, integers, floats, booleans,
/// arrays. Every value keeps its line and column. Size and depth are bounded, so that no text can exhaust the process.
///
/// Source: https://toml.io/en/v1.0.0
package struct TOMLReader {
    package static let maximumSize = 1 << 20
    package static let maximumDepth = 32

    /// - Throws: the first fault; what follows a syntax error cannot be told from it.
    package static func read(_ text: [UInt8]) throws(TOMLError) -> TOMLTable {
        guard text.count <= maximumSize else { throw TOMLError(position: TOMLPosition(line: 1, column: 1), reason: .tooLarge) }
        var reader = TOMLReader(text)
        try reader.checkUTF8()
        try reader.document()
        return reader.root.frozen()
    }

    let bytes: [UInt8]
    var offset = 0
    private var line = 1
    private var lineStart = 0
    private var continuationBytes = 0
    private let root = TableNode(origin: .header, line: 1)

    private init(_ text: [UInt8]) {
        bytes = text
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) {
            offset = 3
            lineStart = 3
        }
    }

    // MARK: Document

    private mutating func document() throws(TOMLError) {
        var table = root
        while true {
            skipBlanks()
            switch peek() {
            case nil: return
            case UInt8(ascii: "["): table = try header()
            case UInt8(ascii: "#"), 0x0A, 0x0D: break
            default: try keyAndValue(in: table, depth: 0)
            }
            try endOfLine()
        }
    }

    /// `[table]` or `[[array of tables]]`.
    private mutating func header() throws(TOMLError) -> TableNode {
        let start = position
        advance()
        let isArray = peek() == UInt8(ascii: "[")
        if isArray { advance() }
        let path = try dottedKey()
        for _ in 0..<(isArray ? 2 : 1) {
            guard peek() == UInt8(ascii: "]") else { throw error(.unclosedHeader) }
            advance()
        }
        var table = root
        for part in path.dropLast() {
            switch table.children[part.name] {
            case nil: table = table.add(TableNode(origin: .implied, line: part.position.line), for: part)
            case .table(let child) where child.origin != .inline: table = child
            case .tables(let children):
                guard let last = children.elements.last else {
                    throw error(.notATable(part.name, firstLine: children.line), at: part.position)
                }
                table = last
            case .some(let other): throw error(.notATable(part.name, firstLine: other.line), at: part.position)
            }
        }
        guard let last = path.last else { throw error(.expectedKey) }
        let existing = table.children[last.name]
        if isArray {
            let element = TableNode(origin: .header, line: start.line)
            switch existing {
            case nil: table.add(.tables(TablesNode(element, line: start.line)), for: last)
            case .tables(let tables): tables.elements.append(element)
            case .some(let other): throw error(.notATable(last.name, firstLine: other.line), at: last.position)
            }
            return element
        }
        switch existing {
        case nil: return table.add(TableNode(origin: .header, line: start.line), for: last)
        case .table(let child) where child.origin == .implied:
            child.origin = .header
            child.line = start.line
            return child
        case .some(let other): throw error(.repeatedKey(last.name, firstLine: other.line), at: last.position)
        }
    }

    mutating func keyAndValue(in table: TableNode, depth: Int) throws(TOMLError) {
        let path = try dottedKey()
        guard peek() == UInt8(ascii: "=") else { throw error(.expectedEquals) }
        advance()
        skipBlanks()
        var table = table
        for part in path.dropLast() {
            switch table.children[part.name] {
            case nil: table = table.add(TableNode(origin: .dotted, line: part.position.line), for: part)
            case .table(let child) where child.origin == .dotted: table = child
            case .some(let other): throw error(.notATable(part.name, firstLine: other.line), at: part.position)
            }
        }
        guard let last = path.last else { throw error(.expectedKey) }
        if let other = table.children[last.name] { throw error(.repeatedKey(last.name, firstLine: other.line), at: last.position) }
        table.add(try value(depth: depth + path.count), for: last)
    }

    // MARK: Keys

    struct KeyPart {
        var name: String
        var position: TOMLPosition
    }

    private mutating func dottedKey() throws(TOMLError) -> [KeyPart] {
        var path: [KeyPart] = []
        while true {
            skipBlanks()
            let start = position
            let name: String
            switch peek() {
            case UInt8(ascii: "\""): name = try basicString(isKey: true)
            case UInt8(ascii: "'"): name = try literalString(isKey: true)
            default: name = try bareKey()
            }
            path.append(KeyPart(name: name, position: start))
            guard path.count <= Self.maximumDepth else { throw error(.tooDeep, at: start) }
            skipBlanks()
            guard peek() == UInt8(ascii: ".") else { return path }
            advance()
        }
    }

    private mutating func bareKey() throws(TOMLError) -> String {
        let start = offset
        while let byte = peek(), isBareKeyByte(byte) { advance() }
        guard offset > start else { throw error(.expectedKey) }
        return String(decoding: bytes[start..<offset], as: UTF8.self)
    }

    private func isBareKeyByte(_ byte: UInt8) -> Bool {
        (0x61...0x7A).contains(byte | 0x20) && byte >= 0x41 || (0x30...0x39).contains(byte) || byte == 0x2D || byte == 0x5F
    }

    // MARK: Scanning

    var position: TOMLPosition { TOMLPosition(line: line, column: offset - lineStart - continuationBytes + 1) }

    func peek(_ ahead: Int = 0) -> UInt8? { offset + ahead < bytes.count ? bytes[offset + ahead] : nil }

    mutating func advance() {
        guard offset < bytes.count else { return }
        let byte = bytes[offset]
        offset += 1
        if byte == 0x0A {
            line += 1
            lineStart = offset
            continuationBytes = 0
        } else if byte & 0xC0 == 0x80 {
            continuationBytes += 1
        }
    }

    mutating func skipBlanks() {
        while let byte = peek(), byte == 0x20 || byte == 0x09 { advance() }
    }

    /// Skips blanks, line ends and comments: what may stand between the elements of an array.
    mutating func skipLinesAndComments() throws(TOMLError) {
        while true {
            skipBlanks()
            switch peek() {
            case UInt8(ascii: "#"): try comment()
            case 0x0A: advance()
            case 0x0D where peek(1) == 0x0A: advance()
            default: return
            }
        }
    }

    private mutating func endOfLine() throws(TOMLError) {
        skipBlanks()
        if peek() == UInt8(ascii: "#") { try comment() }
        if peek() == 0x0D, peek(1) == 0x0A { advance() }
        switch peek() {
        case nil: return
        case 0x0A: advance()
        default: throw error(.expectedEndOfLine)
        }
    }

    private mutating func comment() throws(TOMLError) {
        while let byte = peek(), byte != 0x0A {
            if byte == 0x0D, peek(1) == 0x0A { return }
            if isControl(byte) { throw error(.controlCharacter) }
            advance()
        }
    }

    func isControl(_ byte: UInt8) -> Bool { byte < 0x20 && byte != 0x09 || byte == 0x7F }

    func error(_ reason: TOMLError.Reason, at position: TOMLPosition? = nil) -> TOMLError {
        TOMLError(position: position ?? self.position, reason: reason)
    }

    private func checkUTF8() throws(TOMLError) {
        if String(validating: bytes, as: UTF8.self) != nil { return }
        var number = 1
        for line in bytes.split(separator: 0x0A, omittingEmptySubsequences: false) {
            if String(validating: line, as: UTF8.self) == nil {
                throw TOMLError(position: TOMLPosition(line: number, column: 1), reason: .notUTF8)
            }
            number += 1
        }
        throw TOMLError(position: TOMLPosition(line: 1, column: 1), reason: .notUTF8)
    }
}

extension TOMLReader {
    /// A table while the document is read: shared, so that a later header can extend it.
    final class TableNode {
        enum Origin { case header, implied, dotted, inline }

        var origin: Origin
        var line: Int
        private(set) var children: [String: Child] = [:]
        private var keys: [(part: KeyPart, child: Child)] = []

        init(origin: Origin, line: Int) {
            self.origin = origin
            self.line = line
        }

        func add(_ child: Child, for part: KeyPart) {
            children[part.name] = child
            keys.append((part, child))
        }

        func add(_ table: TableNode, for part: KeyPart) -> TableNode {
            add(.table(table), for: part)
            return table
        }

        func add(_ value: TOMLValue, for part: KeyPart) { add(.value(value), for: part) }

        func frozen() -> TOMLTable {
            TOMLTable(
                keys.map { part, child in
                    let kind: TOMLValue.Kind
                    switch child {
                    case .value(let value): return .init(key: part.name, keyPosition: part.position, value: value)
                    case .table(let table): kind = .table(table.frozen())
                    case .tables(let tables):
                        kind = .array(
                            tables.elements.map { TOMLValue(kind: .table($0.frozen()), position: .init(line: $0.line, column: 1)) })
                    }
                    return .init(key: part.name, keyPosition: part.position, value: TOMLValue(kind: kind, position: part.position))
                })
        }
    }

    final class TablesNode {
        var elements: [TableNode]
        let line: Int

        init(_ first: TableNode, line: Int) {
            elements = [first]
            self.line = line
        }
    }

    enum Child {
        case value(TOMLValue)
        case table(TableNode)
        case tables(TablesNode)

        var line: Int {
            switch self {
            case .value(let value): value.position.line
            case .table(let table): table.line
            case .tables(let tables): tables.line
            }
        }
    }
}
