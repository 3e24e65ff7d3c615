import FoundationEssentials
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite(.timeLimit(.minutes(2))) struct MailAlertTests {
    private let directory: ScratchDirectory
    private let notice = AlertNotice(
        CertificateAlert(
            .expiring, name: "app.example.com", level: .eighth, notAfter: testNow, remaining: 86_400, lastFailure: ".a dot\r\n.\r\nQUIT"),
        host: "gw.example.com", time: testNow, id: "abc1")

    init() throws {
        directory = try ScratchDirectory()
        try directory.write("pass word\n", to: "password")
    }

    private func settings(
        _ stub: SMTPStub, _ security: AlertSettings.Mail.Security, to: [String] = ["admin@example.com"], authenticates: Bool = true
    ) throws -> AlertSettings.Mail {
        AlertSettings.Mail(
            from: try #require(MailAddress("kaku@example.com")), to: try to.map { try #require(MailAddress($0)) },
            server: try #require(MailServer(stub.address)), security: security, username: authenticates ? "user" : nil,
            passwordFile: authenticates ? directory.file("password") : nil)
    }

    private func send(
        _ script: SMTPStub.Script, _ security: AlertSettings.Mail.Security = .none, to: [String] = ["admin@example.com"],
        authenticates: Bool = true, trustFile: String? = nil, limit: TimeAmount = .seconds(300)
    ) async throws -> (result: Result<AlertReceipt, AlertFault>, seen: SMTPStub.Seen) {
        let stub = try await SMTPStub(script)
        let mail = MailAlert(
            try settings(stub, security, to: to, authenticates: authenticates), trustFile: trustFile,
            group: MultiThreadedEventLoopGroup.singleton, limit: limit)
        let result = await mail.send(notice)
        if case .success = result {
            await eventually { stub.seen.withLockedValue { $0.lines.last == "QUIT" } }
        }
        try await stub.close()
        return (result, stub.seen.withLockedValue { $0 })
    }

    @Test("to this machine without TLS: greeting, user, sender, recipient, message, goodbye")
    func plain() async throws {
        let (result, seen) = try await send(SMTPStub.Script())
        #expect(try result.get() == AlertReceipt())
        #expect(
            seen.lines == [
                "EHLO gw.example.com", "AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", "MAIL FROM:<kaku@example.com>", "RCPT TO:<admin@example.com>",
                "DATA",
                "QUIT",
            ])
        #expect(seen.message.contains("Subject: [gw.example.com] Certificate of app.example.com expires in 1 d 0 h"))
        #expect(seen.message.contains("Message-ID: <abc1@example.com>") && seen.message.contains("To: admin@example.com"))
        #expect(seen.message.contains("Last failure: .a dot\\u{D}\\u{A}.\\u{D}\\u{A}QUIT"))
        #expect(seen.bareLines == 0)
    }

    @Test("STARTTLS: nothing but EHLO goes in clear, the certificate is verified, and EHLO is said again")
    func startTLS() async throws {
        let authority = try TestAuthority()
        try directory.write(authority.rootPEM, to: "root.pem")
        let (result, seen) = try await send(.init(tls: authority.server), .startTLS, trustFile: directory.file("root.pem"))
        #expect(throws: Never.self) { try result.get() }
        #expect(seen.lines.prefix(3) == ["EHLO gw.example.com", "STARTTLS", "EHLO gw.example.com"])
        #expect(seen.encryptedLines == seen.lines.count - 2 && seen.message.count > 5)
    }

    @Test("TLS from the first byte")
    func implicitTLS() async throws {
        let authority = try TestAuthority()
        try directory.write(authority.rootPEM, to: "root.pem")
        let (result, seen) = try await send(.init(tls: authority.server, isImplicit: true), .tls, trustFile: directory.file("root.pem"))
        #expect(throws: Never.self) { try result.get() }
        #expect(seen.encryptedLines == seen.lines.count && seen.lines.count == 6)
    }

    @Test("a certificate of another root, or for another address, is not trusted with anything", arguments: [true, false])
    func impostors(isImplicit: Bool) async throws {
        let (own, other, elsewhere) = (try TestAuthority(), try TestAuthority(), try TestAuthority(address: [192, 0, 2, 1]))
        try directory.write(own.rootPEM, to: "own.pem")
        try directory.write(elsewhere.rootPEM, to: "elsewhere.pem")
        for (server, trust) in [(other, "own.pem"), (elsewhere, "elsewhere.pem")] {
            let script = SMTPStub.Script(tls: server.server, isImplicit: isImplicit)
            let (result, seen) = try await send(script, isImplicit ? .tls : .startTLS, trustFile: directory.file(trust))
            #expect(throws: AlertFault.self) { try result.get() }
            #expect(seen.encryptedLines == 0 && !seen.lines.contains { $0.hasPrefix("AUTH") || $0.hasPrefix("MAIL") })
        }
        // The system's roots do not know it either.
        let (result, _) = try await send(.init(tls: own.server, isImplicit: isImplicit), isImplicit ? .tls : .startTLS)
        #expect(throws: AlertFault.self) { try result.get() }
    }

    @Test("a server without STARTTLS gets neither password nor message")
    func noTLS() async throws {
        let (result, seen) = try await send(.init(), .startTLS)
        #expect(throws: AlertFault.self) { try result.get() }
        #expect(seen.lines == ["EHLO gw.example.com"])
    }

    @Test("text behind the answer to STARTTLS, put there by somebody in between, ends it")
    func injectedText() async throws {
        let authority = try TestAuthority()
        try directory.write(authority.rootPEM, to: "root.pem")
        let script = SMTPStub.Script(answers: ["STARTTLS": "220 go\r\n250-stub\r\n250 AUTH PLAIN"], tls: authority.server)
        let (result, seen) = try await send(script, .startTLS, trustFile: directory.file("root.pem"))
        #expect(result.failure?.reason.hasSuffix("the server spoke before it was asked") == true)
        #expect(seen.encryptedLines == 0)
    }

    @Test("one recipient of two is refused: the other has it, and that is told; both: it failed")
    func refusedRecipients() async throws {
        let to = ["a@example.com", "b@example.com"]
        var script = SMTPStub.Script(answers: ["RCPT TO:<a@": "550 5.1.1 no such user"])
        let one = try await send(script, to: to)
        #expect(try one.result.get() == AlertReceipt(refused: ["a@example.com"]))
        script.answers["RCPT TO:<b@"] = "450 later"
        let both = try await send(script, to: to)
        #expect(both.result.failure?.reason.hasSuffix("the server refused every recipient: 450 later") == true)
        #expect(!both.seen.lines.contains("DATA"))
    }

    @Test("a wrong password is told by its code alone")
    func wrongPassword() async throws {
        let (result, _) = try await send(.init(answers: ["AUTH": "535 you said AHVzZXIAcGFzcyB3b3Jk"]))
        #expect(result.failure?.reason.hasSuffix("the server refused user name and password: 535") == true)
    }

    @Test("a server that stalls, at any point, is left at the limit", arguments: ["", "EHLO", "AUTH", "MAIL", "DATA"])
    func stalls(at command: String) async throws {
        var script = SMTPStub.Script(stallsBehind: command)
        if command.isEmpty { script.greeting = "220-wait" }
        let (result, _) = try await send(script, limit: .milliseconds(200))
        #expect(result.failure?.reason.contains("no end after") == true)
    }

    @Test("lines without end, answers without end, and what is no answer", arguments: ["long", "many", "HTTP/1.1 400 no"])
    func hostile(greeting: String) async throws {
        var script = SMTPStub.Script(greeting: greeting)
        if greeting == "long" { script.greeting = "220 " + String(repeating: "x", count: 100_000) }
        if greeting == "many" { script.greeting = String(repeating: "220-x\r\n", count: 1_000) + "220 x" }
        let (result, seen) = try await send(script)
        #expect(throws: AlertFault.self) { try result.get() }
        #expect(seen.lines == [] && (result.failure?.reason.utf8.count ?? 0) < 400)
    }

    @Test("nobody listens; the password's file is gone; the task is cancelled")
    func failures() async throws {
        let stub = try await SMTPStub(.init(stallsBehind: "EHLO"))
        let settings = try settings(stub, .none)
        let mail = MailAlert(settings, group: MultiThreadedEventLoopGroup.singleton)
        let task = Task { await mail.send(notice) }
        await eventually { stub.seen.withLockedValue { !$0.lines.isEmpty } }
        task.cancel()
        #expect(await task.value == .failure(AlertFault("\(stub.address): it was cancelled")))
        try await stub.close()
        #expect(await mail.send(notice).failure != nil)
        var other = settings
        other.passwordFile = directory.file("gone")
        let fault = await MailAlert(other, group: MultiThreadedEventLoopGroup.singleton).send(notice).failure
        #expect(fault?.reason.contains("gone: cannot be read") == true)
    }
}

extension Result {
    fileprivate var failure: Failure? {
        if case .failure(let failure) = self { failure } else { nil }
    }
}
