import Logging
import Proxy
import Testing

@Suite struct LogFormatTests {
    private let time = (seconds: 1_700_000_000, nanoseconds: 7_000_000)

    @Test("JSON lines have time, level, msg and the metadata")
    func json() {
        let line = LogFormat.json.line(
            level: .warning, message: "Tunnel not found",
            metadata: ["domain": "a.b", "count": .stringConvertible(3), "domains": ["x", "y"]], time: time)
        #expect(
            line
                == #"{"time":"2023-11-14T22:13:20.007Z","level":"WARN","msg":"Tunnel not found","count":3,"domain":"a.b","domains":["x","y"]}"#
                + "\n")
    }

    @Test("text lines have the same, with quotes where they are needed")
    func text() {
        let line = LogFormat.text.line(
            level: .info, message: "Tunnel registered", metadata: ["domain": "a.b", "error": "no answer", "list": ["x", "y"], "x": ""],
            time: time)
        #expect(line == "2023-11-14T22:13:20.007Z INFO  Tunnel registered domain=a.b error=\"no answer\" list=\"x, y\" x=\"\"\n")
    }

    @Test("metadata cannot forge a key of the line, a line, or an escape sequence", arguments: LogFormat.allCases)
    func untrusted(format: LogFormat) {
        let evil = "a\r\n{\"level\":\"x\"}\u{1B}[31m\u{7F}\u{85}\u{9B}\u{202E}\u{2066}\u{0}"
        let line = format.line(level: .info, message: evil, metadata: ["msg": "forged", "host": "\(evil)"], time: time)
        #expect(line.utf8.filter { $0 == 0x0A }.count == 1)
        #expect(line.utf8.last == 0x0A)
        for scalar in line.dropLast().unicodeScalars {
            #expect(scalar.value >= 0x20 && !(0x7F...0x9F).contains(scalar.value) && !(0x202A...0x202E).contains(scalar.value))
            #expect(!(0x2066...0x2069).contains(scalar.value))
        }
        if format == .json { #expect(!line.contains("forged")) }
    }

    @Test("a value is cut to 1 KB", arguments: LogFormat.allCases)
    func cut(format: LogFormat) {
        let line = format.line(
            level: .info, message: "m", metadata: ["host": "\(String(repeating: "é\u{1B}", count: 100_000))"], time: time)
        #expect(line.utf8.count < 1200)
        #expect(line.contains("…"))
    }

    @Test("escaped text keeps ordinary letters")
    func escape() {
        #expect(LogText.escape("größe ✓") == "größe ✓")
        #expect(LogText.escape("a\tb") == "a\\u{9}b")
        #expect(LogText.escape("abcdef", limit: 5) == "ab…")
    }
}
