import FoundationEssentials
import Testing
import Vectors

enum Fixture {
    static func wireGuard() throws -> [UInt8] { try file("wireguard.json") }

    static func noiseText() throws -> [UInt8] { try file("noise-flynn.txt") }

    static func noiseJSON() throws -> [UInt8] { try file("noise-independent.json") }

    /// The first case of `noise-independent.json` with this pattern.
    static func noiseCase(_ pattern: String) throws -> JSON {
        let vectors = try #require(try JSONReader.read(try noiseJSON())["vectors"]?.array)
        return try #require(vectors.first { $0["protocol_name"]?.string?.hasPrefix("Noise_\(pattern)_") == true })
    }

    /// All of flynn/noise's cases, where Debian's golang-github-flynn-noise-dev is installed.
    static let debianPath = "/usr/share/gocode/src/github.com/flynn/noise/vectors.txt"
    static var hasDebian: Bool { FileManager.default.fileExists(atPath: debianPath) }

    static func debian() throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(filePath: debianPath))) }

    /// A file of `vectors/`, found next to `Tests/` in the checkout.
    private static func file(_ name: String, from source: String = #filePath) throws -> [UInt8] {
        let checkout = source.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
        return [UInt8](try Data(contentsOf: URL(filePath: checkout + "/vectors/" + name)))
    }

    /// FNV-1a: enough to see whether two documents are the same.
    static func fingerprint(_ text: String) -> String {
        String(text.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }, radix: 16)
    }
}

/// The way from a document to one of its values.
struct JSONPath: CustomStringConvertible {
    enum Step: Equatable {
        case member(String)
        case element(Int)
    }

    var steps: [Step] = []

    /// The names alone, without the indices.
    var names: [String] {
        steps.compactMap { step in
            if case .member(let name) = step { name } else { nil }
        }
    }

    var description: String { "\(steps)" }
}

extension JSON {
    /// Every value that holds no others.
    func leaves(_ path: JSONPath = JSONPath()) -> [JSONPath] {
        switch self {
        case .object(let members): members.flatMap { $0.value.leaves(JSONPath(steps: path.steps + [.member($0.name)])) }
        case .array(let elements):
            elements.enumerated().flatMap { $1.leaves(JSONPath(steps: path.steps + [.element($0)])) }
        case .null, .bool, .number, .string: [path]
        }
    }

    func replacing(_ name: String, _ value: JSON) -> JSON {
        .object((members ?? []).map { $0.name == name ? Member(name, value) : $0 })
    }

    func removing(_ name: String) -> JSON { .object((members ?? []).filter { $0.name != name }) }

    func adding(_ name: String, _ value: JSON) -> JSON { .object((members ?? []) + [Member(name, value)]) }

    /// The same document with the value at `steps` changed a little.
    func damaging(_ steps: [JSONPath.Step]) -> JSON {
        switch steps.first {
        case nil: damaged
        case .member(let name): replacing(name, (self[name] ?? .null).damaging(Array(steps.dropFirst())))
        case .element(let index):
            .array((array ?? []).enumerated().map { $0 == index ? $1.damaging(Array(steps.dropFirst())) : $1 })
        }
    }

    private var damaged: JSON {
        switch self {
        case .null: .string(String(repeating: "1", count: 64))
        case .bool(let value): .bool(!value)
        case .number(let text): .number(String((UInt64(text) ?? 0) ^ 1))
        case .string(let text) where text.isEmpty: .string("01")
        case .string(let text) where text.hasSuffix("="): .string((text.hasPrefix("A") ? "B" : "A") + text.dropFirst())
        case .string(let text): .string(text.dropLast() + (text.hasSuffix("0") ? "1" : "0"))
        case .array, .object: .null
        }
    }
}
