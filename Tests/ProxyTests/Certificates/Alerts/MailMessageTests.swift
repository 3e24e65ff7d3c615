import FoundationEssentials
import Proxy
import Testing

@Suite struct MailMessageTests {
    @Test("addresses of mail", arguments: ["a@b", "first.last+tag@mail.example.com", "o'neil@example.com", "x_y=z@a-b.example"])
    func addresses(text: String) {
        #expect(MailAddress(text)?.text == text)
    }

    @Test(
        "what could leave a command or a header is no address",
        arguments: [
            "", "a", "@b", "a@", "a@b\r\nRCPT TO:<x@y>", "a@b>", "<a@b>", "a b@c", "a@b c", "a..b@c", ".a@b", "a.@b", "\"a b\"@c", "a@b..c",
            "a@-b",
            "a@b-", "ä@b", "a@bä.example", "a@[127.0.0.1]", "a@b\0", "a\t@b", "a@b,c@d", "Name <a@b>",
            String(repeating: "a", count: 65) + "@b",
        ])
    func notAddresses(text: String) {
        #expect(MailAddress(text) == nil)
    }

    @Test("servers are a name or an address with a port")
    func servers() {
        #expect(MailServer("mail.example.com:587").map { "\($0.host) \($0.port)" } == "mail.example.com 587")
        #expect(MailServer("[::1]:25").map { "\($0.host) \($0.isLoopback) \($0)" } == "::1 true [::1]:25")
        #expect(MailServer("LocalHost:25")?.isLoopback == true && MailServer("127.9.9.9:25")?.isLoopback == true)
        #expect(MailServer("localhost.example.com:25")?.isLoopback == false && MailServer("192.0.2.1:25")?.isLoopback == false)
        for text in [
            "", "mail", "mail:", ":25", "mail:0", "mail:65536", "mail:+25", "a b:25", "mail\r\n:25", "::1:25x", "[::1:25", "[a]:25",
        ] {
            #expect(MailServer(text) == nil, "\(text)")
        }
    }

    @Test("a subject in ASCII stays as it is; other ones become encoded words of at most 75 characters, cut at whole characters")
    func subjects() throws {
        #expect(MailMessage.encodedSubject("[gw] Certificate") == "[gw] Certificate")
        #expect(MailMessage.encodedSubject("a\r\nBcc: x@y") == "a\\u{D}\\u{A}Bcc: x@y")
        let text = String(repeating: "é𝛼", count: 30)
        let lines = MailMessage.encodedSubject(text).split(separator: "\r\n ")
        #expect(lines.count > 1 && lines.allSatisfy { $0.utf8.count <= 75 && $0.hasPrefix("=?UTF-8?B?") && $0.hasSuffix("?=") })
        let decoded = try lines.map {
            String(decoding: try #require(Data(base64Encoded: String($0.dropFirst(10).dropLast(2)))), as: UTF8.self)
        }
        #expect(decoded.joined() == text)
        #expect(MailMessage.encodedSubject("=?UTF-8?B?eA==?=").hasPrefix("=?UTF-8?B?PT9"))
    }

    @Test("dates, at the turn of a year and of a leap day")
    func dates() {
        for (seconds, text) in [
            (0.0, "Thu, 01 Jan 1970 00:00:00 +0000"), (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 +0000"),
            (1_798_761_599.9, "Thu, 31 Dec 2026 23:59:59 +0000"),
        ] {
            #expect(MailMessage.date(Date(timeIntervalSince1970: seconds)) == text)
        }
    }

    @Test("dots at the beginning of a line are doubled, and the end is a dot by itself")
    func dots() {
        func stuffed(_ text: String) -> String { String(decoding: MailMessage.stuffed(Array(text.utf8)), as: UTF8.self) }
        #expect(stuffed("a\r\n.\r\n.b\r\nc.\r\n") == "a\r\n..\r\n..b\r\nc.\r\n.\r\n")
        #expect(stuffed(".") == "..\r\n.\r\n")
        #expect(stuffed("") == ".\r\n")
    }

    @Test("hostile names and failures stay in their lines")
    func hostile() throws {
        let alert = CertificateAlert(
            .expired, name: "a\r\nBcc: x@y\r\n\r\n", level: .expired, notAfter: testNow, remaining: -5,
            lastFailure: "x\r\n.\r\nMAIL FROM:<a@b>")
        let address = try #require(MailAddress("me@b.c"))
        let notice = AlertNotice(alert, host: "h", time: testNow, id: ">\r\n<")
        let text = String(decoding: MailMessage(notice, from: address, to: [address, address]).bytes(allows8Bit: true), as: UTF8.self)
        let lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)
        #expect(!lines.contains { $0.hasPrefix("Bcc") || $0.hasPrefix("MAIL") || $0 == "." })
        #expect(lines.contains("To: me@b.c,") && lines.contains(" me@b.c") && lines.contains("Message-ID: <@b.c>"))
        #expect(text.unicodeScalars.filter { $0 == "\n" }.count == lines.count - 1)
    }
}
