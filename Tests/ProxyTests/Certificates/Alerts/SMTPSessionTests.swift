import FoundationEssentials
import Proxy
import Testing

@Suite struct SMTPSessionTests {
    private func session(
        upgrades: Bool = false, isSafe: Bool = true, password: String? = nil, text: String = "Hello\n", to: [String] = ["a@b.c"]
    ) throws -> SMTPSession {
        let message = MailMessage(
            from: try #require(MailAddress("me@b.c")), to: try to.map { try #require(MailAddress($0)) }, subject: "s", text: text,
            date: testNow, id: "1")
        return SMTPSession(
            .init(
                clientName: "me.example", message: message, upgrades: upgrades, isSafe: isSafe,
                credentials: password.map { .init(username: "user", password: $0) }))
    }

    private func say(_ session: inout SMTPSession, _ text: String) -> String {
        switch session.receive((text + "\r\n").utf8) {
        case .send(let bytes): String(decoding: bytes, as: UTF8.self)
        case .none: "nothing"
        case .startTLS: "TLS"
        case .done(let refused, let goodbye): "done \(refused) \(String(decoding: goodbye, as: UTF8.self))"
        case .failed(let fault): "failed: \(fault)"
        }
    }

    @Test("a whole session without TLS and user, byte by byte the same")
    func whole() throws {
        let answers = ["220 hi", "250-hi\r\n250 SIZE 1000", "250 ok", "250 ok", "354 go", "250 taken"]
        var (whole, pieces) = (try session(), try session())
        for (answer, expected) in zip(answers, ["EHLO me.example\r\n", "MAIL FROM:<me@b.c>\r\n", "RCPT TO:<a@b.c>\r\n", "DATA\r\n"]) {
            #expect(say(&whole, answer) == expected)
            var last = SMTPSession.Action.none
            for byte in (answer + "\r\n").utf8 {
                #expect(last == .none)
                last = pieces.receive([byte])
            }
            #expect(last == .send(Array(expected.utf8)))
        }
        let message = say(&whole, "354 go")
        #expect(message.hasPrefix("From: kakuremichi <me@b.c>\r\nTo: a@b.c\r\nSubject: s\r\nDate: Fri, 15 Jan 2027 08:00:00 +0000\r\n"))
        #expect(message.hasSuffix("\r\n\r\nHello\r\n.\r\n"))
        #expect(say(&whole, "250 taken") == "done [] QUIT\r\n")
        #expect(say(&whole, "250 more") == "nothing")
    }

    @Test("the password goes through TLS or to this machine, never else")
    func passwordNeedsTLS() throws {
        var bare = try session(isSafe: false, password: "p")
        _ = say(&bare, "220 hi")
        #expect(say(&bare, "250-hi\r\n250 AUTH PLAIN") == "failed: \(SMTPFault.passwordInClear)")
        var upgraded = try session(upgrades: true, isSafe: false, password: "p")
        _ = say(&upgraded, "220 hi")
        #expect(say(&upgraded, "250-hi\r\n250-AUTH PLAIN\r\n250 STARTTLS") == "STARTTLS\r\n")
        #expect(say(&upgraded, "220 go") == "TLS")
        #expect(upgraded.receiveTLS() == .send(Array("EHLO me.example\r\n".utf8)))
        // RFC 3207 §4.2: what it offered before counts no more.
        #expect(say(&upgraded, "250 hi") == "failed: \(SMTPFault.noAuthentication)")
    }

    @Test("a server that refuses or hides STARTTLS gets nothing")
    func noStartTLS() throws {
        for (answer, expected) in [
            ("250-hi\r\n250 8BITMIME", "failed: \(SMTPFault.noTLS)"), ("250-hi\r\n250 XSTARTTLS", "failed: \(SMTPFault.noTLS)"),
            ("500 no", "failed: the server refused EHLO: 500 no"),
        ] {
            var session = try session(upgrades: true, isSafe: false)
            _ = say(&session, "220 hi")
            #expect(say(&session, answer) == expected)
        }
        var session = try session(upgrades: true, isSafe: false)
        _ = say(&session, "220 hi")
        #expect(say(&session, "250-hi\r\n250 starttls") == "STARTTLS\r\n")
        #expect(say(&session, "454 not now") == "failed: the server refused STARTTLS: 454 not now")
    }

    @Test("AUTH PLAIN at once; asked for when it is longer than a command may be; only once")
    func authPlain() throws {
        var short = try session(password: "pässword")
        _ = say(&short, "220 hi")
        #expect(say(&short, "250-hi\r\n250 AUTH LOGIN PLAIN") == "AUTH PLAIN \(Data("\0user\0pässword".utf8).base64EncodedString())\r\n")
        #expect(say(&short, "334 again") == "failed: the server refused user name and password: 334")
        let long = String(repeating: "x", count: 500)
        var session = try session(password: long)
        _ = say(&session, "220 hi")
        #expect(say(&session, "250-hi\r\n250 AUTH PLAIN") == "AUTH PLAIN\r\n")
        #expect(say(&session, "334 ") == Data("\0user\0\(long)".utf8).base64EncodedString() + "\r\n")
        #expect(say(&session, "235 in") == "MAIL FROM:<me@b.c>\r\n")
    }

    @Test("AUTH LOGIN where there is no PLAIN: the name, then the password, then no more")
    func authLogin() throws {
        var session = try session(password: "pass")
        _ = say(&session, "220 hi")
        #expect(say(&session, "250-hi\r\n250 AUTH LOGIN CRAM-MD5") == "AUTH LOGIN\r\n")
        #expect(say(&session, "334 VXNlcm5hbWU6") == "dXNlcg==\r\n")
        var early = session
        #expect(say(&session, "334 UGFzc3dvcmQ6") == "cGFzcw==\r\n")
        var greedy = session
        #expect(say(&session, "235 in") == "MAIL FROM:<me@b.c>\r\n")
        #expect(say(&greedy, "334 more") == "failed: the server refused user name and password: 334")
        #expect(say(&early, "235 in") == "failed: the server refused user name and password: 235")
    }

    @Test("a server that repeats the password is not quoted")
    func echoedPassword() throws {
        for echo in ["hunter22", Data("hunter22".utf8).base64EncodedString(), Data("\0user\0hunter22".utf8).base64EncodedString()] {
            var session = try session(password: "hunter22")
            _ = say(&session, "220 hi")
            _ = say(&session, "250-hi\r\n250 AUTH PLAIN")
            _ = say(&session, "235 in")
            #expect(say(&session, "550-you said\r\n550 \(echo)") == "failed: the server refused MAIL: 550 ")
        }
        #expect("\(SMTPSession.Credentials(username: "user", password: "hunter22"))" == "credentials")
    }

    @Test("text beyond ASCII: 8 bits where the server takes them, base64 elsewhere; lines stay short")
    func eightBit() throws {
        let text = String(repeating: "é", count: 1_500) + "\n.\n..x\n"
        for (offer, isOffered) in [("8BITMIME", true), ("HELP", false)] {
            var session = try session(text: text)
            _ = say(&session, "220 hi")
            #expect(say(&session, "250-hi\r\n250 \(offer)") == "MAIL FROM:<me@b.c>\(isOffered ? " BODY=8BITMIME" : "")\r\n")
            _ = say(&session, "250 ok")
            _ = say(&session, "250 ok")
            let message = say(&session, "354 go")
            #expect(message.contains("Content-Transfer-Encoding: \(isOffered ? "8bit" : "base64")\r\n"))
            let lines = message.split(separator: "\r\n", omittingEmptySubsequences: false)
            #expect(lines.allSatisfy { $0.utf8.count <= 998 } && message.hasSuffix("\r\n.\r\n"))
            #expect(isOffered == lines.contains("..") && isOffered == lines.contains("...x"))
            if !isOffered {
                let body = message.split(separator: "\r\n\r\n")[1].dropLast(3).split(separator: "\r\n").joined()
                let decoded = String(decoding: try #require(Data(base64Encoded: body)), as: UTF8.self)
                #expect(decoded.split(separator: "\r\n").filter { $0.hasPrefix("é") }.joined().count == 1_500)
            }
        }
    }

    @Test("an old server gets HELO, unless TLS or a user is wanted")
    func oldServer() throws {
        var session = try session()
        _ = say(&session, "220 hi")
        #expect(say(&session, "502 what") == "HELO me.example\r\n")
        #expect(say(&session, "250 hi") == "MAIL FROM:<me@b.c>\r\n")
        var user = try self.session(password: "p")
        _ = say(&user, "220 hi")
        #expect(say(&user, "502 what") == "failed: the server refused EHLO: 502 what")
    }

    @Test("each refusal is told with its stage; what the server says is escaped and cut")
    func refusals() throws {
        let answers = ["220 hi", "250 hi", "250 ok", "250 ok", "354 go", "250 taken"]
        let stages = ["greeting", "EHLO", "MAIL", "every recipient", "DATA", "the message"]
        for (number, stage) in stages.enumerated() {
            var session = try session()
            for answer in answers.prefix(number) { _ = say(&session, answer) }
            #expect(say(&session, "554 \u{1B}[31mno") == "failed: the server refused \(stage): 554 \\u{1B}[31mno")
        }
        var session = try session()
        let long = say(&session, "554 " + String(repeating: "x", count: 900))
        #expect(long.utf8.count < 300)
    }

    @Test("the server goes away between recipients")
    func goesAway() throws {
        var session = try session(to: ["a@b.c", "d@b.c"])
        for answer in ["220 hi", "250 hi", "250 ok", "250 ok"] { _ = say(&session, answer) }
        #expect(say(&session, "421 bye") == "failed: the server refused RCPT: 421 bye")
    }

    @Test("more than one answer at a time is not taken")
    func eager() throws {
        var session = try session()
        #expect(say(&session, "220 hi\r\n250 hi") == "failed: \(SMTPFault.unexpectedText)")
        var other = try self.session(upgrades: true, isSafe: false)
        for answer in ["220 hi", "250-hi\r\n250 STARTTLS", "220 go"] { _ = say(&other, answer) }
        #expect(say(&other, "250 hi") == "failed: \(SMTPFault.unexpectedText)")
    }
}
