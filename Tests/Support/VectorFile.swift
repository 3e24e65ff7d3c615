import FoundationEssentials
import Inet
import Synchronization

/// A file of `vectors/`, found next to `Tests/` in the checkout.
public struct VectorFile {
    /// The whole document.
    public let root: JSONValue

    /// Reads `vectors/<name>.json`.
    public init(_ name: String, from file: String = #filePath) throws {
        // Tests/Support/VectorFile.swift or Tests/SomeTests/SomeTests.swift: the checkout is three components up.
        let components = file.split(separator: "/", omittingEmptySubsequences: false).dropLast(3)
        let path = components.joined(separator: "/") + "/vectors/\(name).json"
        root = try JSONDecoder().decode(JSONValue.self, from: Data(contentsOf: URL(filePath: path)))
    }
}

/// A JSON document as it stands. A missing member or element is `.null`; reading it as something else throws.
public enum JSONValue: Equatable, Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    public subscript(key: String) -> JSONValue {
        if case .object(let members) = self { members[key] ?? .null } else { .null }
    }

    public subscript(index: Int) -> JSONValue {
        if case .array(let elements) = self, elements.indices.contains(index) { elements[index] } else { .null }
    }

    public var string: String {
        get throws {
            guard case .string(let value) = self else { throw VectorError.unexpected(self, wanted: "string") }
            return value
        }
    }

    /// An integer, written as a number or as a string of decimal digits (for values that JSON readers would round).
    public var integer: UInt64 {
        get throws {
            switch self {
            case .integer(let value) where value >= 0: return UInt64(value)
            case .string(let text):
                if let value = UInt64(text) { return value }
                throw VectorError.unexpected(self, wanted: "integer")
            default: throw VectorError.unexpected(self, wanted: "integer")
            }
        }
    }

    public var int: Int {
        get throws {
            guard let value = Int(exactly: try integer) else { throw VectorError.unexpected(self, wanted: "Int") }
            return value
        }
    }

    public var uint32: UInt32 {
        get throws {
            guard let value = UInt32(exactly: try integer) else { throw VectorError.unexpected(self, wanted: "UInt32") }
            return value
        }
    }

    public var bool: Bool {
        get throws {
            guard case .bool(let value) = self else { throw VectorError.unexpected(self, wanted: "bool") }
            return value
        }
    }

    public var array: [JSONValue] {
        get throws {
            guard case .array(let elements) = self else { throw VectorError.unexpected(self, wanted: "array") }
            return elements
        }
    }

    public var object: [String: JSONValue] {
        get throws {
            guard case .object(let members) = self else { throw VectorError.unexpected(self, wanted: "object") }
            return members
        }
    }

    /// The names of an object's members; a test compares them to show that it knows every field.
    public var keys: Set<String> {
        get throws { Set(try object.keys) }
    }

    /// The bytes of a string of hexadecimal digits.
    public var hex: [UInt8] {
        get throws {
            guard let bytes = [UInt8](hex: try string) else { throw VectorError.unexpected(self, wanted: "hex") }
            return bytes
        }
    }
}

public enum VectorError: Error, Equatable {
    case unexpected(JSONValue, wanted: String)
}

extension [UInt8] {
    /// The bytes that `text` spells, two hexadecimal digits each; `nil` for anything else.
    public init?(hex text: String) {
        let digits = text.utf8.map { digit -> UInt8 in
            switch digit {
            case 0x30...0x39: digit - 0x30
            case 0x41...0x46: digit - 0x37
            case 0x61...0x66: digit - 0x57
            default: 0xFF
            }
        }
        guard digits.count.isMultiple(of: 2), !digits.contains(0xFF) else { return nil }
        self = stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }

    /// Lower-case hexadecimal digits, two a byte.
    public var hex: String {
        let digits = [UInt8]("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

extension JSONValue: Decodable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }
}

extension RandomSource {
    /// A source that gives `bytes` in order and zeroes when they are used up: for vectors that name their ephemeral keys.
    public static func giving(_ bytes: [UInt8]) -> RandomSource {
        let rest = Shared(bytes)
        return RandomSource { output in
            let given = rest.take(output.byteCount)
            for offset in 0..<output.byteCount { output.store(offset < given.count ? given[offset] : 0, at: offset) }
        }
    }

    private final class Shared: Sendable {
        private let bytes: Mutex<[UInt8]>
        init(_ bytes: [UInt8]) { self.bytes = Mutex(bytes) }
        func take(_ count: Int) -> [UInt8] {
            bytes.withLock { bytes in
                defer { bytes.removeFirst(min(count, bytes.count)) }
                return Array(bytes.prefix(count))
            }
        }
    }
}
