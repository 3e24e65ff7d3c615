import Proxy
import Testing

@Suite struct SMTPReplyTests {
    private func parse(_ text: String) throws(SMTPFault) -> SMTPReply? {
        var parser = SMTPReplyParser()
        return try parser.receive(Array(text.utf8)[...])?.reply
    }

    @Test("a reply of one line, of several, of a code alone")
    func replies() throws {
        #expect(try parse("250 ok\r\n") == SMTPReply(code: 250, lines: [Array("ok".utf8)]))
        #expect(try parse("250-a\r\n250-\r\n250 b\r\n") == SMTPReply(code: 250, lines: ["a", "", "b"].map { Array($0.utf8) }))
        #expect(try parse("354\r\n") == SMTPReply(code: 354, lines: [[]]))
        #expect(try parse("250-a\r\n250") == nil)
    }

    @Test(
        "what is no reply",
        arguments: [
            "250 ok\n", "\r\n", "25\r\n", "25x ok\r\n", "250+ok\r\n", "150 ok\r\n", "600 ok\r\n", "250-a\r\n251 b\r\n", "\u{FF}250 ok\r\n",
            " 250 ok\r\n",
        ])
    func notReplies(text: String) {
        #expect(throws: SMTPFault.notAReply) { try parse(text) }
    }

    @Test("lines and their number are bounded, whether they end or not; a fault is for good")
    func bounds() throws {
        let line = "250 " + String(repeating: "x", count: SMTPReplyParser.longestLine - 5)
        #expect(try parse(line + "\r\n")?.lines[0].count == SMTPReplyParser.longestLine - 5)
        #expect(throws: SMTPFault.longLine) { try parse(line + "x\r\n") }
        #expect(throws: SMTPFault.longLine) { try parse(line + "xxxx") }
        let many = String(repeating: "250-x\r\n", count: SMTPReplyParser.maximumLines)
        #expect(try parse(many) == nil)
        #expect(throws: SMTPFault.manyLines) { try parse(many + "250 x\r\n") }
        var parser = SMTPReplyParser()
        #expect(throws: SMTPFault.notAReply) { try parser.receive(Array("what\r\n".utf8)[...]) }
        #expect(throws: SMTPFault.notAReply) { try parser.receive(Array("250 ok\r\n".utf8)[...]) }
    }

    @Test("one reply is taken, and told how long it was")
    func one() throws {
        var parser = SMTPReplyParser()
        let bytes = Array("220 a\r\n250 b\r\n".utf8)
        let first = try #require(try parser.receive(bytes[...]))
        #expect(first.count == 7 && first.reply.code == 220 && parser.isEmpty)
        #expect(try parser.receive(bytes[7...])?.reply.code == 250)
    }
}
