import Proxy
import Testing

@Suite struct TOMLReaderTests {
    private func read(_ text: String) throws(TOMLError) -> Proxy.TOMLTable { try TOMLReader.read(Array(text.utf8)) }

    private func value(_ text: String) throws -> Proxy.TOMLValue.Kind {
        try #require(try read("v = \(text)")["v"]).kind
    }

    private func fault(_ text: String) -> TOMLError? {
        do {
            _ = try read(text)
            return nil
        } catch {
            return error
        }
    }

    @Test("every value keeps its line and column")
    func positions() throws {
        let table = try read("a = 1\n\n[t]\n  b = [true,\n \"x\"]\n'é' = \"ö\" # c\n")
        #expect(table["a"]?.position == TOMLPosition(line: 1, column: 5))
        guard case .table(let inner)? = table["t"]?.kind, case .array(let elements)? = inner["b"]?.kind else {
            Issue.record("no table")
            return
        }
        #expect(inner.entry("b")?.keyPosition == TOMLPosition(line: 4, column: 3))
        #expect(elements.map(\.position) == [TOMLPosition(line: 4, column: 8), TOMLPosition(line: 5, column: 2)])
        #expect(inner["é"]?.position == TOMLPosition(line: 6, column: 7))
        #expect(inner.keys == ["b", "é"])
    }

    @Test(
        "integers in four bases, with underscores, to the ends of 64 bits",
        arguments: [
            ("0", 0), ("+99", 99), ("-17", -17), ("1_000", 1000), ("0xDEAD_beef", 0xDEAD_BEEF), ("0o755", 0o755), ("0b1101", 13),
            ("9223372036854775807", Int64.max), ("-9223372036854775808", Int64.min), ("0x7FFFFFFFFFFFFFFF", Int64.max), ("-0", 0),
        ])
    func integers(text: String, expected: Int64) throws { #expect(try value(text) == .integer(expected)) }

    @Test(
        "integers beyond 64 bits are errors",
        arguments: ["9223372036854775808", "-9223372036854775809", "0x8000000000000000", "99999999999999999999999999"])
    func outOfRange(text: String) {
        #expect(fault("v = \(text)") == TOMLError(position: TOMLPosition(line: 1, column: 5), reason: .integerOutOfRange))
    }

    @Test(
        "malformed numbers are errors",
        arguments: [
            "01", "1__0", "_1", "1_", "0x", "0xG", "0b2", "+0x1", "1.", ".5", "1e", "1.e3", "1._5", "1.5.2", "--1", "1a", "0_1", "-",
            "00.5",
        ])
    func badNumbers(text: String) { #expect(fault("v = \(text)") != nil) }

    @Test(
        "floats",
        arguments: [("1.5", 1.5), ("-0.01", -0.01), ("5e+22", 5e22), ("1_0.2_5e-1_0", 10.25e-10), ("inf", .infinity), ("-inf", -.infinity)])
    func floats(text: String, expected: Double) throws { #expect(try value(text) == .float(expected)) }

    @Test(
        "strings of all four kinds",
        arguments: [
            (#""a\tb\"\\\u00e9\U0001F600""#, "a\tb\"\\é😀"), (#"'C:\dir'"#, #"C:\dir"#), ("\"\"\"\na\nb\"\"\"", "a\nb"),
            ("\"\"\"a \\\n   \n  b\"\"\"", "a b"), ("'''\n'quoted' \\n'''", "'quoted' \\n"), ("\"\"\"a\"\"\"\"\"", "a\"\""), ("\"\"", ""),
            ("'''a'''''", "a''"), ("\"\"\"\"\"\"", ""), ("\"\"\"x\r\ny\"\"\"", "x\r\ny"),
        ])
    func strings(text: String, expected: String) throws { #expect(try value(text) == .string(expected)) }

    @Test(
        "unclosed and malformed strings are errors at their beginning",
        arguments: [
            "\"a", "'a", "\"\"\"a", "'''a\n''", "\"a\nb\"", "\"\\x41\"", "\"\\uD800\"", "\"\\U00110000\"", "\"\\u12\"", "\"\u{1}\"",
            "\"a\rb\"",
        ])
    func badStrings(text: String) throws {
        let error = try #require(fault("v = \(text)"))
        #expect(error.position.line == 1)
        #expect(error.position.column >= 5)
    }

    @Test("dates are refused by name", arguments: ["1979-05-27", "1979-05-27T07:32:00Z", "07:32:00"])
    func dates(text: String) { #expect(fault("v = \(text)")?.reason == .dateNotSupported) }

    @Test("arrays of tables, dotted keys and inline tables build the same tree as headers")
    func trees() throws {
        let table = try read("[[p]]\nk = 1\n[[p]]\nk = 2\n[p.q]\nr.s = {t = 3, u.v = 4}\n")
        guard case .array(let elements)? = table["p"]?.kind, elements.count == 2, case .table(let second) = elements[1].kind,
            case .table(let q)? = second["q"]?.kind, case .table(let r)? = q["r"]?.kind, case .table(let s)? = r["s"]?.kind,
            case .table(let u)? = s["u"]?.kind
        else {
            Issue.record("\(table)")
            return
        }
        #expect(second["k"]?.kind == .integer(2))
        #expect(s["t"]?.kind == .integer(3))
        #expect(u["v"]?.kind == .integer(4))
    }

    @Test(
        "what is defined twice or extended after it was complete is an error",
        arguments: [
            "a=1\na=2", "[a]\n[a]", "a=1\n[a]", "[a]\nb=1\n[a.b]", "a={}\n[a.b]", "a=[]\n[[a]]", "[[a]]\n[a]", "a.b=1\na.b.c=2",
            "[a.b]\n[a]\nb.c=1",
            "a={b=1,b=2}", "[a]\nb.c=1\n[a.b]", "a={b.c=1, b={}}", "a={b={}}\na.b.c=1",
        ])
    func redefinition(text: String) {
        switch fault(text)?.reason {
        case .repeatedKey, .notATable: break
        case let other: Issue.record("\(text): \(String(describing: other))")
        }
    }

    @Test("a key in a message is escaped and cut", arguments: ["%=1\n%=2", "%=1\n[%]"])
    func keyInMessage(text: String) throws {
        let long = String(repeating: "k", count: 100)
        for (key, shown) in [("\"a\\u001B[2Jb\"", "a\\u{1B}[2Jb "), (long, String(repeating: "k", count: 37) + "… ")] {
            let message = try #require(fault(text.replacing("%", with: key))).message
            #expect(message.hasPrefix(shown), "\(message)")
        }
    }

    @Test("a super-table may follow its sub-table")
    func superTable() throws { #expect(try read("[a.b]\nx=1\n[a]\ny=2").keys == ["a"]) }

    @Test(
        "syntax errors name what is expected",
        arguments: [
            ("a", TOMLError.Reason.expectedEquals), ("= 1", .expectedKey), ("a = ", .expectedValue), ("a = b", .expectedValue),
            ("a = 1 2", .expectedEndOfLine),
            ("a = 1 b = 2", .expectedEndOfLine), ("[a", .unclosedHeader), ("[[a]", .unclosedHeader), ("[]", .expectedKey),
            ("a = [1 2]", .unclosedArray),
            ("a = [1,", .unclosedArray), ("a = {b = 1", .unclosedTable), ("a = {b = 1,}", .expectedKey), ("a = {b = 1\n}", .unclosedTable),
            ("a..b = 1", .expectedKey), ("\"\"\"a\"\"\" = 1", .expectedEquals), ("a = true1", .expectedValue),
            ("# \u{0}", .controlCharacter), ("a = 1\rb = 2", .expectedEndOfLine),
        ])
    func syntax(text: String, reason: TOMLError.Reason) { #expect(fault(text)?.reason == reason) }

    @Test("depth and size are bounded")
    func bounds() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(fault("a = \(deep)")?.reason == .tooDeep)
        #expect(fault("a = " + String(repeating: "{a=", count: 50_000))?.reason == .tooDeep)
        #expect(fault("[" + Array(repeating: "a", count: 1000).joined(separator: ".") + "]")?.reason == .tooDeep)
        #expect(fault(String(repeating: "#", count: TOMLReader.maximumSize + 1))?.reason == .tooLarge)
    }

    @Test("invalid UTF-8 names its line")
    func invalidUTF8() {
        do {
            _ = try TOMLReader.read(Array("a = 1\nb = \"".utf8) + [0xC3, 0x28, 0x22])
            Issue.record("accepted")
        } catch {
            #expect(error == TOMLError(position: TOMLPosition(line: 2, column: 1), reason: .notUTF8))
        }
    }
}
