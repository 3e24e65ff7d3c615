import FoundationEssentials
import NIOPosix
import Proxy
import Testing

private let environment = ProcessInfo.processInfo.environment

/// Against aiosmtpd, which `Tests/Interop/alerts` starts and describes in the environment.
@Suite(.enabled(if: environment["ALERTS_SMTP_CA"] != nil, "Tests/Interop/alerts runs them"), .serialized, .timeLimit(.minutes(1)))
struct MailInteropTests {
    /// As the server's library has read it.
    private struct Received: Decodable {
        var from: String
        var to: [String]
        var subject, text, date: String
        var isEncrypted: Bool
        var user: String?
    }

    private func deliver(
        _ variable: String, _ security: AlertSettings.Mail.Security, id: String, password: String? = "pässword 1",
        failure: String = "ACME, order: no", to: [String] = ["admin@example.com", "other@example.com"]
    ) async throws -> Received {
        let directory = try ScratchDirectory()
        if let password { try directory.write(password + "\n", to: "password") }
        let settings = AlertSettings.Mail(
            from: try #require(MailAddress("gw@example.com")), to: try to.map { try #require(MailAddress($0)) },
            server: try #require(MailServer(environment[variable] ?? "")), security: security, username: password == nil ? nil : "gateway",
            passwordFile: password == nil ? nil : directory.file("password"))
        let alert = CertificateAlert(
            .expiring, name: "app.example.com", level: .twentyFourth, notAfter: testNow, remaining: 3_600, lastFailure: failure)
        let mail = MailAlert(settings, trustFile: environment["ALERTS_SMTP_CA"], group: MultiThreadedEventLoopGroup.singleton)
        _ = try await mail.send(AlertNotice(alert, host: "gw.example.com", time: testNow, id: id)).get()
        let path = "\(environment["ALERTS_SMTP_MESSAGES"] ?? "")/\(id).json"
        return try JSONDecoder().decode(Received.self, from: try #require(FileManager.default.contents(atPath: path)))
    }

    @Test("STARTTLS and AUTH: the message arrives as it was written")
    func startTLS() async throws {
        let received = try await deliver("ALERTS_SMTP_STARTTLS", .startTLS, id: "a1")
        #expect(received.isEncrypted && received.user == "gateway" && received.from == "gw@example.com")
        #expect(received.to == ["admin@example.com", "other@example.com"])
        #expect(received.subject == "[gw.example.com] Certificate of app.example.com expires in 1 h 0 min")
        #expect(received.text.contains("Last failure: ACME, order: no\n") && received.date == "2027-01-15T08:00:00+00:00")
    }

    @Test("TLS from the first byte; dots and characters beyond ASCII survive")
    func implicitTLS() async throws {
        let failure = ".é" + String(repeating: "ü𝛼", count: 50)
        let received = try await deliver("ALERTS_SMTP_TLS", .tls, id: "a2", failure: failure)
        #expect(received.isEncrypted && received.text.contains("Last failure: \(failure)\n"))
    }

    @Test("in clear to this machine, without a user")
    func plain() async throws {
        let received = try await deliver("ALERTS_SMTP_PLAIN", .none, id: "a3", password: nil)
        #expect(!received.isEncrypted && received.user == nil)
    }

    @Test("a wrong password and a recipient that nobody is")
    func refused() async throws {
        let wrong = await #expect(throws: AlertFault.self) {
            try await deliver("ALERTS_SMTP_STARTTLS", .startTLS, id: "a4", password: "wrong")
        }
        #expect(wrong?.reason.hasSuffix("the server refused user name and password: 535") == true)
        let nobody = await #expect(throws: AlertFault.self) {
            try await deliver("ALERTS_SMTP_TLS", .tls, id: "a5", to: ["nobody@example.com"])
        }
        #expect(nobody?.reason.contains("the server refused every recipient: 550") == true)
    }
}
