import FoundationEssentials
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite(.timeLimit(.minutes(2))) struct ExpiryWatcherTests {
    private let directory: ScratchDirectory
    private let clock = TestClock()
    private let log = LockedLog()
    private let group = MultiThreadedEventLoopGroup.singleton

    init() throws { directory = try ScratchDirectory() }

    private func watcher(_ channels: [any AlertChannel], delays: [TimeAmount] = [.milliseconds(1), .milliseconds(1)]) -> ExpiryWatcher {
        ExpiryWatcher(
            channels: channels, file: directory.file("alerts.json"), group: group, logger: log.logger, clock: { [clock] in clock.now },
            delays: delays)
    }

    private var expiring: WatchedCertificate {
        WatchedCertificate(name: "app.example.com", notBefore: testNow - 80 * day, notAfter: testNow + 10 * day)
    }

    @Test("an alert goes to every channel and into the log, once, whatever is restarted")
    func once() async throws {
        let (webhook, mail) = (FakeChannel(.webhook), FakeChannel(.mail))
        for _ in 0..<3 {
            let watcher = watcher([webhook, mail])
            for _ in 0..<3 { await watcher.check(certificates: [expiring], missing: []) }
            await watcher.shutdown()
        }
        #expect(webhook.events == [.expiring] && mail.events == [.expiring])
        #expect(webhook.sent.withLockedValue { $0 } == mail.sent.withLockedValue { $0 })
        #expect(
            log.all.filter { $0.hasPrefix("warning") } == [
                "warning Certificate of app.example.com expires in 10 d 0 h domain=app.example.com event=expiring expires=2027-01-25T08:00:00Z"
            ])
        #expect(directory.mode("alerts.json") == 0o600 && directory.names == ["alerts.json"])
    }

    @Test("a missing certificate and an expired one are errors in the log, what is good again a notice; without channels too")
    func levels() async throws {
        let watcher = watcher([])
        let missing = MissingCertificate(name: "b.example", since: testNow - 3_600, lastFailure: "CAA")
        var expired = expiring
        expired.notAfter = testNow
        await watcher.check(certificates: [expired], missing: [missing])
        var renewed = expiring
        renewed.notAfter = testNow + 90 * day
        await watcher.check(certificates: [renewed], missing: [missing])
        #expect(
            log.all == [
                "error Certificate of app.example.com has expired domain=app.example.com event=expired expires=2027-01-15T08:00:00Z",
                "error Certificate not found b.example domain=b.example error=CAA event=missing",
                "notice Certificate of app.example.com is good again for 90 d 0 h domain=app.example.com event=recovered "
                    + "expires=2027-04-15T08:00:00Z",
            ])
    }

    @Test("a damaged file is put aside, and a new one is begun", arguments: ["{", "", "[]", "{\"entries\":7}", "\u{0}"])
    func damaged(text: String) async throws {
        try directory.write(text, to: "alerts.json")
        let channel = FakeChannel(.exec)
        let watcher = watcher([channel])
        await watcher.check(certificates: [expiring], missing: [])
        await watcher.shutdown()
        #expect(directory.names == ["alerts.json", "alerts.json.damaged"] && channel.events == [.expiring])
        #expect(log.all.first?.hasPrefix("warning What was told of certificates is not known any more") == true)
    }

    @Test("a file that cannot be written is warned of once, and alerts are sent all the same")
    func unwritable() async throws {
        let channel = FakeChannel(.exec)
        let watcher = ExpiryWatcher(
            channels: [channel], file: directory.file("gone/alerts.json"), group: group, logger: log.logger, clock: { [clock] in clock.now }
        )
        for _ in 0..<3 { await watcher.check(certificates: [expiring], missing: []) }
        await watcher.shutdown()
        #expect(channel.events == [.expiring])
        #expect(log.all.filter { $0.contains("may be told again after a restart") }.count == 1)
    }

    @Test("a channel that fails is tried three times; one that works by then has sent")
    func retries() async throws {
        let (good, bad) = (FakeChannel(.webhook, failures: 2), FakeChannel(.mail, failures: 3))
        let watcher = watcher([good, bad])
        await watcher.check(certificates: [expiring], missing: [])
        await eventually { watcher.counters[.mail, .failed] == 1 && watcher.counters[.webhook, .sent] == 1 }
        #expect(good.events == [.expiring] && bad.events == [])
        #expect(watcher.counters[.webhook, .retried] == 2 && watcher.counters[.mail, .retried] == 2)
        #expect(
            log.all.contains(
                "error Alert not sent, and given up attempt=3 channel=mail error=no\\u{A}way event=expiring name=app.example.com"))
        var text = MetricsText()
        text.add(alerts: watcher.counters)
        #expect(text.text.contains("\nkakuremichi_alerts_total{channel=\"mail\",outcome=\"failed\"} 1\n"))
        #expect(text.text.contains("\nkakuremichi_alerts_total{channel=\"webhook\",outcome=\"sent\"} 1\n"))
        #expect(!text.text.contains("exec"))
        await watcher.shutdown()
    }

    @Test("a channel that hangs keeps no other from sending; what waits for it is bounded, and the end comes in time")
    func hangs() async throws {
        let (hung, good) = (FakeChannel(.exec, hangs: true), FakeChannel(.webhook))
        let watcher = watcher([hung, good])
        let all = (0..<300).map {
            WatchedCertificate(name: "\($0).example", notBefore: testNow - 80 * day, notAfter: testNow + 10 * day)
        }
        await watcher.check(certificates: Array(all.prefix(200)), missing: [])
        await eventually { watcher.counters[.webhook, .sent] == 200 }
        await watcher.check(certificates: all, missing: [])
        await eventually { watcher.counters[.webhook, .sent] == 300 }
        // One is under way or still waits, 256 wait.
        #expect((43...44).contains(watcher.counters[.exec, .dropped]))
        await watcher.shutdown(within: .milliseconds(100))
        await eventually { watcher.counters[.exec, .dropped] + watcher.counters[.exec, .failed] == 300 }
    }

    @Test("at the end nothing waits for its next attempt, and what comes afterwards is dropped")
    func shutdown() async throws {
        let channel = FakeChannel(.mail, failures: 1)
        let watcher = watcher([channel], delays: [.hours(1)])
        await watcher.check(certificates: [expiring], missing: [])
        await eventually { watcher.counters[.mail, .retried] == 1 }
        await watcher.shutdown()
        #expect(channel.events == [.expiring])
        var other = expiring
        other.name = "c.example"
        await watcher.check(certificates: [expiring, other], missing: [])
        #expect(watcher.counters[.mail, .dropped] == 1 && channel.events == [.expiring])
    }

    @Test("a test goes to every channel once, and tells what became of it")
    func test() async throws {
        let (good, bad) = (FakeChannel(.mail), FakeChannel(.webhook, failures: 1))
        let results = await AlertChannels.sendTest([good, bad])
        #expect(results == [.init(channel: .webhook, fault: AlertFault("no\nway")), .init(channel: .mail)])
        #expect(good.events == [.test])
    }

    @Test("every channel fails in every way, and no secret is in what is logged")
    func secrets() async throws {
        try directory.write("t0kenSecret\n", to: "token")
        try directory.write("passSecret\n", to: "password")
        try directory.write("#!/bin/sh\nexit 1\n", to: "tell", mode: 0o700)
        let plain = Data("\0userSecret\0passSecret".utf8).base64EncodedString()
        let http = try await HTTPStub()
        http.answers.withLockedValue { $0["/services/pathSecret?querySecret"] = .init(status: 403, body: "pathSecret t0kenSecret") }
        let echoes = ["AUTH": "535 \(plain) passSecret", "MAIL": "550 passSecret \(plain)", ".": "554 passSecret"]
        var servers: [SMTPStub] = []
        for (command, answer) in echoes { servers.append(try await SMTPStub(.init(answers: [command: answer]))) }
        servers.append(try await SMTPStub(.init(greeting: "554 no")))
        var urls = [http.url, "http://127.0.0.1:1", "https://nowhere.invalid"]
        urls = urls.map { $0 + "/services/pathSecret?querySecret" }
        for (index, server) in (servers.map(\.address) + ["127.0.0.1:1"]).enumerated() {
            let settings = AlertSettings(
                webhook: .init(
                    url: try #require(WebhookURL(urls[index % urls.count])), format: index % 2 == 0 ? .json : .slack,
                    tokenFile: directory.file("token")),
                exec: directory.file("tell"),
                mail: .init(
                    from: try #require(MailAddress("a@b.c")), to: [try #require(MailAddress("d@e.f"))],
                    server: try #require(MailServer(server)), security: .none, username: "userSecret",
                    passwordFile: directory.file("password")))
            // As AlertChannels makes them, with less patience.
            func channels() throws -> [any AlertChannel] {
                [
                    WebhookAlert(try #require(settings.webhook), group: group, limit: .milliseconds(500)),
                    ExecAlert(program: try #require(settings.exec)), MailAlert(try #require(settings.mail), group: group),
                ]
            }
            let watcher = ExpiryWatcher(
                channels: try channels(), file: directory.file("\(index).json"), group: group, logger: log.logger,
                clock: { [clock] in clock.now }, delays: [.milliseconds(1)])
            await watcher.check(certificates: [expiring], missing: [])
            await eventually { AlertChannelKind.allCases.allSatisfy { watcher.counters[$0, .failed] == 1 } }
            await watcher.shutdown()
            let results = await AlertChannels.sendTest(try channels())
            let made = AlertChannels.make(settings, group: group)
            #expect(made.map(\.kind) == AlertChannelKind.allCases)
            for channel in made { await channel.shutdown() }
            #expect(results.count == 3 && results.allSatisfy { $0.fault != nil })
            log.lines.withLockedValue { $0 += results.map { "\($0)" } + ["\(settings)"] }
        }
        for server in servers { try await server.close() }
        try await http.close()
        #expect(log.all.count > 40)
        for secret in ["pathSecret", "querySecret", "t0kenSecret", "passSecret", plain, Data("passSecret".utf8).base64EncodedString()] {
            #expect(!log.all.contains { $0.contains(secret) }, "\(secret)")
        }
    }

    @Test("urgent alerts have more attempts than others")
    func urgent() async throws {
        let channel = FakeChannel(.mail, failures: 6)
        let watcher = ExpiryWatcher(
            channels: [channel], file: directory.file("alerts.json"), group: group, logger: log.logger, clock: { [clock] in clock.now },
            delays: [.milliseconds(1)], urgentDelays: [TimeAmount](repeating: .milliseconds(1), count: 4))
        await watcher.check(certificates: [expiring], missing: [])
        await eventually { watcher.counters[.mail, .failed] == 1 }
        #expect(watcher.counters[.mail, .retried] == 1)
        let missing = MissingCertificate(name: "b.example", since: testNow - 3_600)
        await watcher.check(certificates: [expiring], missing: [missing])
        await eventually { watcher.counters[.mail, .sent] == 1 }
        #expect(watcher.counters[.mail, .retried] == 5 && channel.events == [.missing])
        await watcher.shutdown()
    }

    @Test("while one waits for its next attempt others are sent, and one of the same name and event takes its place")
    func replaced() async throws {
        let channel = FakeChannel(.mail, failures: 1)
        let watcher = watcher([channel], delays: [.hours(1)])
        await watcher.check(certificates: [expiring], missing: [])
        await eventually { watcher.counters[.mail, .retried] == 1 }
        var other = expiring
        other.name = "c.example"
        await watcher.check(certificates: [expiring, other], missing: [])
        await eventually { watcher.counters[.mail, .sent] == 1 }
        var later = expiring
        later.notAfter = testNow + 2 * day
        await watcher.check(certificates: [later, other], missing: [])
        await eventually { watcher.counters[.mail, .sent] == 2 }
        #expect(watcher.counters[.mail, .dropped] == 1)
        await watcher.shutdown()
        #expect(channel.events == [.expiring, .expiring])
    }

    @Test("that something is not watched is logged once; the file of all that are is read again")
    func overflow() async throws {
        let all = (0..<5_000).map {
            WatchedCertificate(
                name: "\($0)." + String(repeating: "a", count: 240), notBefore: testNow - 80 * day, notAfter: testNow + 10 * day)
        }
        for _ in 0..<2 {
            let watcher = watcher([])
            for _ in 0..<2 { await watcher.check(certificates: all, missing: []) }
            await watcher.shutdown()
        }
        #expect(log.all.filter { $0.hasPrefix("warning Some certificates are not watched") }.count == 2)
        #expect(log.all.count == 2 + ExpiryWatch.maximumNames && directory.names == ["alerts.json"])
    }
}
