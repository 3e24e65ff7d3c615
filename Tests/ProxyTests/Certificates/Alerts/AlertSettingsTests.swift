import Proxy
import Testing

@Suite struct AlertSettingsTests {
    private func load(_ table: String, files: [String: String] = [:], worldReadable: Set<String> = []) -> (
        settings: AlertSettings, faults: [String], warnings: [String]
    ) {
        let (settings, report) = AlertSettings.load(
            Fixture.input(
                ["config": ["/etc/g.toml"]], files: ["/etc/g.toml": table].merging(files) { _, new in new }, worldReadable: worldReadable))
        return (settings, report.faults.map(\.description), report.warnings.map(\.description))
    }

    private let slack = "https://hooks.slack.com/services/T000/B000/sEcReT"

    @Test("no table, no alerts; other parts of the configuration are not looked at")
    func none() {
        let result = load("https = \"off\"\n[wireguard]\nprivate-key = 1")
        #expect(result.settings.isEmpty && result.faults == [])
    }

    @Test("every key")
    func everyKey() throws {
        let table = """
            [alerts]
            webhook = "\(slack)"
            webhook-format = "slack"
            webhook-token-file = "token"
            exec = "/usr/local/bin/tell"
            mail-to = ["a@example.com", "b@example.com", "a@example.com"]
            mail-from = "gw@example.com"
            smtp-server = "mail.example.com:465"
            smtp-security = "tls"
            smtp-username = "gw"
            smtp-password-file = "/run/password"
            """
        let (settings, faults, warnings) = load(
            table, files: ["/etc/token": "abc\n", "/run/password": "p w\r\n"], worldReadable: ["/run/password"])
        #expect(faults == [])
        #expect(warnings == ["/run/password: every user of this machine can read the secret in it; run chmod 600"])
        let expected = AlertSettings(
            webhook: .init(url: try #require(WebhookURL(slack)), format: .slack, tokenFile: "/etc/token"), exec: "/usr/local/bin/tell",
            mail: .init(
                from: try #require(MailAddress("gw@example.com")),
                to: [try #require(MailAddress("a@example.com")), try #require(MailAddress("b@example.com"))],
                server: try #require(MailServer("mail.example.com:465")), security: .tls, username: "gw", passwordFile: "/run/password"))
        #expect(settings == expected)
    }

    @Test("mail goes with STARTTLS unless something else is said; without it only to this machine")
    func security() {
        let start = "[alerts]\nmail-to = \"a@b.c\"\nmail-from = \"d@e.f\"\n"
        #expect(load(start + "smtp-server = \"mail.example.com:587\"").settings.mail?.security == .startTLS)
        for server in ["localhost:25", "127.0.0.1:25", "[::1]:25"] {
            #expect(
                load(start + "smtp-server = \"\(server)\"\nsmtp-security = \"none\"").settings.mail?.security
                    == AlertSettings.Mail.Security.none)
        }
        let (settings, faults, _) = load(start + "smtp-server = \"mail.example.com:25\"\nsmtp-security = \"none\"")
        #expect(settings.mail == nil)
        #expect(
            faults == [
                "/etc/g.toml:5:17: smtp-security: mail.example.com:25 is not on this machine, and mail to it would not be encrypted; write starttls or tls"
            ])
    }

    @Test(
        "each fault has its place and what to write",
        arguments: [
            (
                "webhook = \"http://hooks.slack.com/services/sEcReT\"",
                "2:11: webhook: not a URL that alerts are sent to; write https://HOST/PATH"
            ),
            ("webhook = \"https://user:sEcReT@example.com/\"", "2:11: webhook: not a URL"),
            ("webhook = 1", "2:11: webhook: an integer is given; write a string: a URL"),
            ("webhook-format = \"xml\"\nwebhook = \"https://a.b/\"", "2:18: webhook-format: \"xml\" is not known; write json or slack"),
            ("webhook-format = \"json\"", "2:18: webhook-format: stands alone; write webhook = \"URL\" with it"),
            ("webhook = \"https://a.b/\"\nwebhook-token-file = \"gone\"", "3:22: webhook-token-file: /etc/gone cannot be read"),
            (
                "webhook = \"https://a.b/\"\nwebhook-token-file = \"two\"",
                "3:22: webhook-token-file: /etc/two does not hold one line of 1 to 512 bytes"
            ),
            ("webhook = \"https://a.b/\"\nwebhook-token-file = \"empty\"", "webhook-token-file: /etc/empty does not hold"),
            ("exec = \"tell\"", "2:8: exec: \"tell\" is not an absolute path; write the absolute path of a program"),
            ("mail-to = \"a\\r\\nRCPT TO:<x@y>\"", "2:11: mail-to: \"a\\u{D}\\u{A}RCPT TO:<x@y>\" is not an address of mail"),
            ("mail-to = []", "2:11: mail-to: 0 addresses; write 1 to 20 addresses"),
            ("mail-to = \"a@b.c\"\nmail-from = \"d@e.f\"", "2:11: mail-to: stands alone; write smtp-server = \"HOST:PORT\" with it"),
            ("mail-to = \"a@b.c\"\nsmtp-server = \"m:25\"", "2:11: mail-to: stands alone; write mail-from = \"ADDRESS\" with it"),
            ("smtp-server = \"m:25\"", "2:15: smtp-server: stands alone; write mail-to = \"ADDRESS\" with it"),
            (
                "mail-to = \"a@b.c\"\nsmtp-username = \"u\"",
                "3:17: smtp-username: stands alone; write smtp-password-file = \"FILE\" with it"
            ),
            ("mail-to = \"a@b.c\"\nsmtp-server = \"m\"", "3:15: smtp-server: \"m\" is not a mail server; write HOST:PORT"),
            ("smtp-password = \"p\"", "2:1: smtp-password: no such key in [alerts]"),
        ])
    func faults(table: String, expected: String) {
        let faults = load("[alerts]\n" + table, files: ["/etc/two": "sEcReT\nsEcReT", "/etc/empty": "\n"]).faults
        #expect(faults.contains { $0.hasPrefix("/etc/g.toml:") && $0.contains(expected) }, "\(faults)")
        #expect(!faults.contains { $0.contains("sEcReT") })
    }

    @Test("plain http is for this machine; a URL shows its host and never its path")
    func urls() throws {
        #expect(WebhookURL("http://127.0.0.1:8080/x")?.host == "127.0.0.1:8080")
        #expect(WebhookURL("http://192.0.2.1/x") == nil && WebhookURL("ftp://a.b/") == nil && WebhookURL("https://a.b/\r\nx") == nil)
        let settings = AlertSettings(webhook: .init(url: try #require(WebhookURL(slack))))
        var dumped = ""
        dump(settings, to: &dumped)
        for text in ["\(settings)", String(reflecting: settings), dumped] { #expect(!text.contains("sEcReT") && !text.contains("T000")) }
        #expect("\(try #require(WebhookURL(slack)))" == "https://hooks.slack.com/…")
        #expect(WebhookURL("https://a.b?sEcReT")?.host == "a.b")
    }
}
