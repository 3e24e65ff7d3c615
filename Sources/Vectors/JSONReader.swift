/// Reads a JSON document with bounds on depth and number of values, so that no file makes it run out of stack or memory.
///
/// It is strict: no duplicate members, nothing behind the document. Invalid UTF-8 in a string is an error.
///
/// Source: RFC 8259.
package struct JSONReader {
    /// 32: how deep arrays and objects may lie in each other. A stack frame a level is all that is used.
    package static let maximumDepth = 32
    /// 2,000,000: values of one document.
    package static let maximumValues = 2_000_000

    package struct Fault: Error, Equatable, CustomStringConvertible {
        package var offset: Int
        package var reason: String
        package var description: String { "not JSON at byte \(offset): \(reason)" }
    }

    private let bytes: [UInt8]
    private var position = 0
    private var values = 0

    package static func read(_ bytes: [UInt8]) throws(Fault) -> JSON {
        var reader = JSONReader(bytes: bytes)
        let value = try reader.value(depth: 0)
        reader.skipSpace()
        guard reader.position == bytes.count else { throw reader.fault("more behind the document") }
        return value
    }

    private init(bytes: [UInt8]) {
        self.bytes = bytes
        position = VectorRunner.withoutByteOrderMark(bytes[...]).startIndex
    }

    private mutating func value(depth: Int) throws(Fault) -> JSON {
        guard depth <= Self.maximumDepth else { throw fault("nested deeper than \(Self.maximumDepth)") }
        values += 1
        guard values <= Self.maximumValues else { throw fault("more than \(Self.maximumValues) values") }
        skipSpace()
        guard let first = peek else { throw fault("it ends early") }
        switch first {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "-"), 0x30...0x39: return .number(try number())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: throw fault("unexpected character")
        }
    }

    private mutating func object(depth: Int) throws(Fault) -> JSON {
        position += 1
        var members: [JSON.Member] = []
        var names: Set<String> = []
        if next(is: UInt8(ascii: "}")) { return .object([]) }
        while true {
            skipSpace()
            guard peek == UInt8(ascii: "\"") else { throw fault("a member's name is expected") }
            let name = try string()
            guard names.insert(name).inserted else { throw fault("a member's name comes twice") }
            guard next(is: UInt8(ascii: ":")) else { throw fault("a colon is expected") }
            members.append(JSON.Member(name, try value(depth: depth + 1)))
            if next(is: UInt8(ascii: "}")) { return .object(members) }
            guard next(is: UInt8(ascii: ",")) else { throw fault("a comma or brace is expected") }
        }
    }

    private mutating func array(depth: Int) throws(Fault) -> JSON {
        position += 1
        var elements: [JSON] = []
        if next(is: UInt8(ascii: "]")) { return .array([]) }
        while true {
            elements.append(try value(depth: depth + 1))
            if next(is: UInt8(ascii: "]")) { return .array(elements) }
            guard next(is: UInt8(ascii: ",")) else { throw fault("a comma or bracket is expected") }
        }
    }

    private mutating func string() throws(Fault) -> String {
        position += 1
        let start = position
        while let byte = peek, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { position += 1 }
        guard peek != UInt8(ascii: "\"") else {
            defer { position += 1 }
            return try text(Array(bytes[start..<position]))
        }
        var unescaped = Array(bytes[start..<position])
        while let byte = peek {
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return try text(unescaped)
            case UInt8(ascii: "\\"): unescaped += try escape()
            case 0..<0x20: throw fault("a control character in a string")
            default: unescaped.append(byte)
            }
        }
        throw fault("it ends early")
    }

    private func text(_ bytes: [UInt8]) throws(Fault) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw fault("a string is not UTF-8") }
        return text
    }

    private mutating func escape() throws(Fault) -> [UInt8] {
        guard let byte = peek else { throw fault("it ends early") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0C]
        case UInt8(ascii: "n"): return [0x0A]
        case UInt8(ascii: "r"): return [0x0D]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"):
            var code = try unit()
            if code & 0xFC00 == 0xD800, peek == UInt8(ascii: "\\") {
                position += 1
                guard peek == UInt8(ascii: "u") else { throw fault("half a surrogate pair") }
                position += 1
                let low = try unit()
                guard low & 0xFC00 == 0xDC00 else { throw fault("half a surrogate pair") }
                code = 0x10000 + (code & 0x3FF) << 10 + (low & 0x3FF)
            }
            guard let scalar = Unicode.Scalar(code) else { throw fault("half a surrogate pair") }
            return Array(String(Character(scalar)).utf8)
        default: throw fault("unknown escape")
        }
    }

    private mutating func unit() throws(Fault) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = peek.flatMap(Hex.digit) else { throw fault("four hexadecimal digits are expected") }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }

    private mutating func number() throws(Fault) -> String {
        let start = position
        while let byte = peek, "+-.0123456789Ee".utf8.contains(byte) { position += 1 }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        guard position - start <= 64, Double(text) != nil else { throw fault("not a number") }
        return text
    }

    private mutating func word(_ word: String, _ value: JSON) throws(Fault) -> JSON {
        guard bytes[position...].starts(with: word.utf8) else { throw fault("unexpected character") }
        position += word.utf8.count
        return value
    }

    private var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

    /// Skips space, and then `byte` if it is next.
    private mutating func next(is byte: UInt8) -> Bool {
        skipSpace()
        guard peek == byte else { return false }
        position += 1
        return true
    }

    private mutating func skipSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private func fault(_ reason: String) -> Fault { Fault(offset: position, reason: reason) }
}
