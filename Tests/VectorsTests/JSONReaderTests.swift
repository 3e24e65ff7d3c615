import Testing
import Vectors

@Suite struct JSONReaderTests {
    private func read(_ text: String) throws -> JSON { try JSONReader.read(Array(text.utf8)) }

    @Test("members keep their order, numbers their spelling")
    func values() throws {
        let value = try read(#" {"b": [1, -2.5e3, 18446744073709551615, "9"], "a": {"x": null, "y": true, "z": false}} "#)
        #expect(
            value
                == .object([
                    .init("b", .array([.number("1"), .number("-2.5e3"), .number("18446744073709551615"), .string("9")])),
                    .init("a", .object([.init("x", .null), .init("y", .bool(true)), .init("z", .bool(false))])),
                ]))
        #expect(value["b"]?.array?[2].unsigned == .max)
        #expect(value["b"]?.array?[3].unsigned == 9)
        #expect(value["b"]?.array?[1].unsigned == nil)
    }

    @Test(
        "strings are unescaped, and written so that they are read again", arguments: [#"a\"b\\c\/\b\f\n\r\t"#, #"\u00e9\ud83d\ude00"#, "é"])
    func strings(escaped: String) throws {
        let value = try read("[\"\(escaped)\"]")
        #expect(try read(value.line) == value)
        #expect(try read(value.document) == value)
        #expect(value.line.utf8.allSatisfy { (0x20..<0x7F).contains($0) })
    }

    @Test(
        "what is no JSON is an error with its place",
        arguments: [
            "", "{", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":1,}", "{a:1}", "nul", "\"", "\"\\x\"", "\"\\ud800\"", "\"\\ud800\\u0041\"",
            "\"\n\"", "[1] x",
            "--1", "1e", "{\"a\":1,\"a\":2}", "\u{0}",
        ])
    func malformed(text: String) {
        #expect(throws: JSONReader.Fault.self) { try read(text) }
    }

    @Test("strings that are not UTF-8 are refused")
    func notUTF8() {
        #expect(throws: JSONReader.Fault.self) { try JSONReader.read([0x22, 0xFF, 0x22]) }
    }

    @Test("depth and number of values are bounded")
    func bounds() throws {
        func nested(_ depth: Int) -> String { String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
        #expect(throws: Never.self) { try read(nested(JSONReader.maximumDepth)) }
        #expect(throws: JSONReader.Fault.self) { try read(nested(JSONReader.maximumDepth + 2)) }
        #expect(throws: JSONReader.Fault.self) { try read(String(repeating: "[", count: 1_000_000)) }
        let many = "[" + String(repeating: "0,", count: JSONReader.maximumValues) + "0]"
        #expect(throws: JSONReader.Fault.self) { try read(many) }
    }
}
