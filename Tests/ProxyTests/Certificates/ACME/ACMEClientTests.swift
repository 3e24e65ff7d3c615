import Crypto
import FoundationEssentials
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix
import Proxy
import Testing

private struct NoPresenter: ACMEPresenter {
    func present(_ challenge: ACMEChallenge) async throws { throw FixtureError(text: "nowhere") }
    func withdraw(_ challenge: ACMEChallenge) async {}
}

/// Comes to no end but by cancellation.
private struct HangingPresenter: ACMEPresenter {
    let log = NIOLockedValueBox<[String]>([])

    func present(_ challenge: ACMEChallenge) async throws {
        log.withLockedValue { $0.append("present") }
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        try? await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.succeed()
        }
        log.withLockedValue { $0.append("cancelled") }
        throw CancellationError()
    }

    func withdraw(_ challenge: ACMEChallenge) async { log.withLockedValue { $0.append("withdraw") } }
}

@Suite struct ACMEClientTests {
    /// A client and a server of plain HTTP at this machine, which is all that needs no certificate.
    private func with(_ body: (ACMEClient, HTTPStub) async throws -> Void) async throws {
        let stub = try await HTTPStub()
        let client = try ACMEClient(userAgent: "test/1", group: MultiThreadedEventLoopGroup.singleton)
        do { try await body(client, stub) } catch { Issue.record(error) }
        await client.shutdown()
        try await stub.close()
    }

    @Test("a request has User-Agent, Accept and, if it is signed, the type of a JOSE body; the answer comes back as it is")
    func exchange() async throws {
        try await with { client, stub in
            stub.answers.withLockedValue { $0["/a"] = .init(status: 403, fields: [("Replay-Nonce", "n")], body: "no") }
            let response = try await client.send(
                ACMERequest(method: .post, url: ACMEURL(stub.url + "/a"), accept: "x/y", body: Array("{}".utf8)))
            #expect(response.status == 403 && response.field("replay-nonce") == "n" && response.body == Array("no".utf8))
            let head = try #require(stub.seen.withLockedValue { $0.first })
            #expect(head.headers["User-Agent"] == ["test/1"] && head.headers["Accept"] == ["x/y"])
            #expect(head.headers["Content-Type"] == ["application/jose+json"])
            let read = try await client.send(ACMERequest(method: .head, url: ACMEURL(stub.url + "/a")))
            #expect(read.body == [])
        }
    }

    @Test("redirects come back as they are, and a body over 256 KiB does not")
    func bounds() async throws {
        try await with { client, stub in
            stub.answers.withLockedValue {
                $0["/r"] = .init(status: 307, fields: [("Location", "/a")])
                $0["/full"] = .init(body: String(repeating: "x", count: 256 * 1_024))
                $0["/long"] = .init(body: String(repeating: "x", count: 256 * 1_024 + 1))
            }
            #expect(try await client.send(ACMERequest(method: .get, url: ACMEURL(stub.url + "/r"))).status == 307)
            #expect(stub.seen.withLockedValue { $0.count } == 1)
            #expect(try await client.send(ACMERequest(method: .get, url: ACMEURL(stub.url + "/full"))).body.count == 256 * 1_024)
            let long = ACMERequest(method: .get, url: try ACMEURL(stub.url + "/long"))
            await #expect(throws: (any Error).self) { try await client.send(long) }
        }
    }

    @Test("an order over the network ends with the stage and the reason of its failure")
    func failure() async throws {
        try await with { client, stub in
            stub.answers.withLockedValue { $0["/dir"] = .init(body: "<html>") }
            var order = ACMEOrder(
                ACMEPlan(names: try patterns("app.example.com"), key: .init(P256.Signing.PrivateKey()), challenges: [.http01]),
                session: ACMESession(directory: try ACMEURL(stub.url + "/dir"), key: ACMEKey()))
            guard case .failure(let failure) = await client.issue(&order, presenter: NoPresenter()) else {
                throw FixtureError(text: "done?")
            }
            #expect(failure.stage == .directory && failure.reason == "not JSON")
        }
    }

    @Test("a cancelled order ends while it waits to try again")
    func cancelled() async throws {
        try await with { client, stub in
            stub.answers.withLockedValue { $0["/dir"] = .init(status: 503, fields: [("Retry-After", "60")]) }
            let plan = ACMEPlan(names: try patterns("app.example.com"), key: .init(P256.Signing.PrivateKey()), challenges: [.http01])
            let session = ACMESession(directory: try ACMEURL(stub.url + "/dir"), key: ACMEKey())
            let issuance = Task {
                var order = ACMEOrder(plan, session: session)
                return await client.issue(&order, presenter: NoPresenter())
            }
            while stub.seen.withLockedValue({ $0.isEmpty }) { await Task.yield() }
            issuance.cancel()
            guard case .failure(let failure) = await issuance.value else { throw FixtureError(text: "done?") }
            #expect(failure.kind == .unavailable)
        }
    }

    @Test("presenting that never ends is given up with the order")
    func presentingHangs() async throws {
        try await with { client, stub in
            let nonce = ("Replay-Nonce", "bm9uY2U")
            let url = stub.url
            stub.answers.withLockedValue {
                $0["/dir"] = .init(body: #"{"newNonce":"\#(url)/nonce","newAccount":"\#(url)/account","newOrder":"\#(url)/order"}"#)
                $0["/nonce"] = .init(fields: [nonce])
                $0["/account"] = .init(status: 201, fields: [nonce, ("Location", url + "/account/1")], body: #"{"status":"valid"}"#)
                $0["/order"] = .init(
                    status: 201, fields: [nonce, ("Location", url + "/order/1")],
                    body:
                        #"{"status":"pending","identifiers":[{"type":"dns","value":"app.example.com"}],"authorizations":["\#(url)/auth"],"finalize":"\#(url)/finalize"}"#
                )
                $0["/auth"] = .init(
                    fields: [nonce],
                    body:
                        #"{"status":"pending","identifier":{"type":"dns","value":"app.example.com"},"challenges":[{"type":"http-01","url":"\#(url)/challenge","status":"pending","token":"DGyRejmCefe7v4NfDGDKfA"}]}"#
                )
            }
            // The shortest that is long enough to come to the challenge: a machine may do much else.
            for limit in [1, 5, 25, 125] {
                let presenter = HangingPresenter()
                var plan = ACMEPlan(names: try patterns("app.example.com"), key: .init(P256.Signing.PrivateKey()), challenges: [.http01])
                plan.timeLimit = .seconds(limit)
                var order = ACMEOrder(plan, session: ACMESession(directory: try ACMEURL(url + "/dir"), key: ACMEKey()))
                guard case .failure(let failure) = await client.issue(&order, presenter: presenter) else {
                    throw FixtureError(text: "done?")
                }
                #expect(failure.reason.contains("not done within \(limit).0 seconds"))
                let log = presenter.log.withLockedValue { $0 }
                guard log.isEmpty else { return #expect(log == ["present", "cancelled", "withdraw"]) }
            }
            throw FixtureError(text: "nothing was presented")
        }
    }

    @Test("a trust file that holds no certificate is named")
    func trustFile() throws {
        let directory = try ScratchDirectory()
        try directory.write("nothing", to: "ca.pem")
        #expect(throws: ACMEFault.self) {
            try ACMEClient(trustFile: directory.file("ca.pem"), userAgent: "x", group: MultiThreadedEventLoopGroup.singleton)
        }
    }
}
