import FoundationEssentials
import NIOCore
import NIOHTTP1
import NIOPosix
import Proxy
import Testing

@Suite(.timeLimit(.minutes(1))) struct WebhookAlertTests {
    private let notice = AlertNotice(CertificateAlert(.expired, name: "a<b", level: .expired), host: "gw", time: testNow, id: "1")

    private func send(
        to url: String, format: AlertSettings.Webhook.Format = .json, tokenFile: String? = nil, limit: TimeAmount = .seconds(15)
    ) async throws -> AlertFault? {
        let settings = AlertSettings.Webhook(url: try #require(WebhookURL(url)), format: format, tokenFile: tokenFile)
        let webhook = WebhookAlert(settings, group: MultiThreadedEventLoopGroup.singleton, limit: limit)
        let result = await webhook.send(notice)
        await webhook.shutdown()
        if case .failure(let fault) = result { return fault }
        return nil
    }

    @Test("one POST of JSON with the bearer token of a file, read for each alert")
    func post() async throws {
        let directory = try ScratchDirectory()
        let stub = try await HTTPStub()
        stub.answers.withLockedValue { $0["/hook?x=1"] = .init(status: 204) }
        for token in ["first", "second"] {
            try directory.write(token + "\n", to: "token")
            #expect(try await send(to: stub.url + "/hook?x=1", tokenFile: directory.file("token")) == nil)
        }
        let heads = stub.seen.withLockedValue { $0 }
        #expect(heads.map { $0.headers["Authorization"] } == [["Bearer first"], ["Bearer second"]])
        let head = try #require(heads.first)
        #expect(
            head.method == .POST && head.headers["Content-Type"] == ["application/json"] && head.headers["User-Agent"] == ["kakuremichi"])
        #expect(head.headers["Content-Length"] == ["\(notice.json.count)"])
        try await stub.close()
    }

    @Test("the form of Slack is an object with a text")
    func slack() throws {
        let settings = AlertSettings.Webhook(url: try #require(WebhookURL("http://127.0.0.1/")), format: .slack)
        let webhook = WebhookAlert(settings, group: MultiThreadedEventLoopGroup.singleton)
        #expect(String(decoding: webhook.body(notice), as: UTF8.self) == #"{"text":"[gw] Certificate of a&lt;b has expired"}"#)
        Task { await webhook.shutdown() }
    }

    @Test("a redirect is not followed; other answers than 2xx are failures that name the host and not the path")
    func refusals() async throws {
        let stub = try await HTTPStub()
        stub.answers.withLockedValue {
            $0["/sEcReT"] = .init(status: 302, fields: [("Location", "/other")])
            $0["/other"] = .init(status: 200)
            $0["/sEcReT/500"] = .init(status: 500, body: "/sEcReT/500 failed")
            $0["/sEcReT/bye"] = .init(hangsUp: true)
        }
        let host = stub.url.dropFirst(7)
        #expect(
            try await send(to: stub.url + "/sEcReT")?.reason == "\(host) answered with status 302, and redirects are not followed")
        #expect(stub.seen.withLockedValue { $0.count } == 1)
        #expect(try await send(to: stub.url + "/sEcReT/500")?.reason == "\(host) answered with status 500")
        let other = try await send(to: stub.url + "/sEcReT/bye")?.reason ?? ""
        #expect(other.hasPrefix("\(host): ") && !other.contains("sEcReT"))
        let url = stub.url
        try await stub.close()
        let closed = try await send(to: url + "/sEcReT", limit: .milliseconds(500))?.reason ?? ""
        #expect(closed.hasPrefix("\(host): ") && !closed.contains("sEcReT"))
    }

    @Test("a server that does not answer is left at the limit; a token that is none is not sent")
    func stalls() async throws {
        let silent = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton).bind(host: "127.0.0.1", port: 0).get()
        let url = "http://127.0.0.1:\(silent.localAddress?.port ?? 0)/"
        #expect(try await send(to: url, limit: .milliseconds(200)) != nil)
        let directory = try ScratchDirectory()
        try directory.write("two words", to: "token")
        #expect(try await send(to: url, tokenFile: directory.file("token"))?.reason == "\(directory.file("token")) holds no bearer token")
        #expect(try await send(to: url, tokenFile: directory.file("gone"))?.reason.contains("gone: cannot be read") == true)
        try await silent.close()
    }

    @Test("what an error says is not told when the path is in it, even one of one segment", arguments: ["/sEcReT", "?sEcReT", "/a/sEcReT"])
    func path(path: String) throws {
        let url = try #require(WebhookURL("https://a.b" + path))
        #expect(url.hidingPath(in: "no way to \(path)") == "the request failed")
        #expect(url.hidingPath(in: "no way") == "no way" && WebhookURL("https://a.b/")?.hidingPath(in: "a/b") == "a/b")
    }
}
