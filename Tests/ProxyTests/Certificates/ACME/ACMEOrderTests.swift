import Crypto
import FoundationEssentials
import Inet
import Proxy
import Testing
import X509

/// One issuance in virtual time: what the order asks for is done at once.
private struct Trip {
    var ca = FakeCA()
    var order: ACMEOrder
    var now = ACMEMoment(instant: Instant(nanoseconds: 0), date: testNow)
    /// Types that cannot be presented here.
    var unpresentable: Set<ACMEChallengeType> = []
    private(set) var waits: [Duration] = []
    private(set) var requests = 0

    init(
        _ names: String..., challenges: [ACMEChallengeType] = [.tlsALPN01, .http01, .dns01], account: ACMEURL? = nil,
        external: ExternalAccount? = nil, change: (inout ACMEPlan) -> Void = { _ in }
    ) throws {
        let patterns = try names.map { try #require(DomainPattern($0)) }
        var plan = ACMEPlan(names: patterns, key: .init(P256.Signing.PrivateKey()), challenges: challenges)
        change(&plan)
        order = ACMEOrder(
            plan,
            session: ACMESession(
                directory: try FakeCA.directoryURL(), key: ACMEKey(), account: account, contacts: ["mailto:a@example.com"],
                externalAccount: external))
    }

    mutating func advance(by duration: Duration) {
        now.instant += duration
        now.date += Double(duration.inNanoseconds) / 1e9
    }

    mutating func run() throws -> ACMEOrder.Action {
        var action = order.start(now: now)
        for _ in 0..<5_000 {
            switch action {
            case .send(let request):
                requests += 1
                advance(by: .milliseconds(50))
                if let response = try ca.answer(request, now: now.date) {
                    action = order.receive(response, now: now)
                } else {
                    action = order.receiveFailure("connection reset", now: now)
                }
            case .wait(let until):
                let wait = until - now.instant
                #expect(wait > .zero)
                waits.append(wait)
                advance(by: wait)
                action = order.handleTimeout(now: now)
            case .present(let challenge):
                if unpresentable.contains(challenge.type) {
                    action = order.challengeUnavailable("no such thing", now: now)
                } else {
                    ca.presented.append(challenge)
                    action = order.challengeReady(now: now)
                }
            case .done, .failed:
                #expect(ca.faults == [])
                return action
            }
        }
        throw FixtureError(text: "it does not end")
    }

    mutating func certificate() throws -> ACMECertificate {
        let end = try run()
        guard case .done(let certificate) = end else { throw FixtureError(text: "\(end)") }
        return certificate
    }

    mutating func failure() throws -> ACMEFailure {
        let end = try run()
        guard case .failed(let failure) = end else { throw FixtureError(text: "\(end)") }
        return failure
    }
}

@Suite struct ACMEOrderTests {
    @Test("an issuance from nothing: directory, nonce, account, order, authorization, challenge, finalize, chain")
    func wholeWay() throws {
        var trip = try Trip("app.example.com")
        let certificate = try trip.certificate()
        #expect(certificate.chain.count == 2 && certificate.leaf.publicKey == trip.order.plan.key.publicKey)
        #expect(
            trip.ca.log == [
                "dir", "nonce", "account", "new-order", "authz/0/0", "chall/0/0/tls-alpn-01", "authz/0/0", "order/0", "finalize/0",
                "cert/0/0",
            ])
        #expect(trip.ca.presented.map(\.type) == [.tlsALPN01])
        #expect(trip.order.session.account != nil)
        #expect(try certificate.chainPEM().hasPrefix("-----BEGIN CERTIFICATE-----"))
    }

    @Test("dns-persist-01 has no token: the record names the account and the CA, for wildcards too; without it the next type is taken")
    func persist() throws {
        var trip = try Trip("app.example.com", "*.example.com", challenges: [.dnsPersist01, .dns01])
        trip.ca.offered = ["dns-01", "dns-persist-01"]
        _ = try trip.certificate()
        let account = try #require(trip.order.session.account).text
        #expect(trip.ca.presented.map(\.type) == [.dnsPersist01, .dnsPersist01])
        #expect(
            trip.ca.presented.map { $0.persistDemand?.record.description } == [
                "ca.test; accounturi=\(account)", "ca.test; accounturi=\(account); policy=wildcard",
            ])
        #expect(trip.ca.presented.first?.persistDemand?.issuers == ["ca.test", "ca2.test"])
        trip = try Trip("app.example.com", challenges: [.dnsPersist01, .dns01])
        trip.ca.offered = ["dns-01", "dns-persist-01"]
        trip.unpresentable = [.dnsPersist01]
        _ = try trip.certificate()
        #expect(trip.ca.presented.map(\.type) == [.dns01])
    }

    @Test("an offer of dns-persist-01 with no names, too many, names that are none, or another account is none")
    func unusablePersist() throws {
        let eleven = (0..<11).map { #""ca\#($0).test""# }.joined(separator: ",")
        for members in [
            #""x":1"#, #""issuer-domain-names":[]"#, #""issuer-domain-names":[\#(eleven)]"#, #""issuer-domain-names":["ca.test","a; b"]"#,
            #""issuer-domain-names":["ca.test"],"accounturi":"https://ca.test/account/of-another""#,
        ] {
            var trip = try Trip("app.example.com", challenges: [.dnsPersist01])
            trip.ca.offered = ["http-01", "dns-persist-01"]
            trip.ca.persistMembers = members
            #expect(try trip.failure().reason.hasPrefix("no usable challenge for app.example.com"), "\(members)")
        }
    }

    @Test("a stored account and session need neither directory nor registration again")
    func storedSession() throws {
        var trip = try Trip("app.example.com")
        _ = try trip.certificate()
        let (before, session) = (trip.ca.log.count, trip.order.session)
        trip.order = ACMEOrder(trip.order.plan, session: session)
        _ = try trip.certificate()
        #expect(trip.ca.log[before] == "new-order")
    }

    @Test("half of all nonces refused, a hundred issuances: all succeed, and a refused one is never used again")
    func badNonces() throws {
        for _ in 0..<100 {
            var trip = try Trip("app.example.com")
            trip.ca.nonceRejection = 0.5
            _ = try trip.certificate()
        }
    }

    @Test("a CA that refuses every nonce is given up after twenty")
    func onlyBadNonces() throws {
        var trip = try Trip("app.example.com")
        trip.ca.nonceRejection = 1
        let failure = try trip.failure()
        #expect(failure.stage == .account && failure.kind == .unavailable && failure.problem?.type == "badNonce")
        #expect(trip.requests == 23)
    }

    @Test("valid authorizations are skipped; an order that is ready is finalized at once")
    func reuse() throws {
        var trip = try Trip("a.example.com", "b.example.com")
        trip.ca.validNames = ["a.example.com"]
        _ = try trip.certificate()
        #expect(trip.ca.presented.map(\.name.name) == ["b.example.com"])
        var ready = try Trip("a.example.com")
        ready.ca.isReadyAtOnce = true
        _ = try ready.certificate()
        #expect(ready.ca.log == ["dir", "nonce", "account", "new-order", "finalize/0", "cert/0/0"])
    }

    @Test("each challenge is answered once, whatever the CA takes to decide; waits obey Retry-After between a second and a minute")
    func polling() throws {
        for (retryAfter, longest) in [("0", 1), ("7", 7), ("3600", 60), ("nonsense", 8)] {
            var trip = try Trip("app.example.com")
            trip.ca.pendingPolls = 3
            trip.ca.processingPolls = 3
            trip.ca.retryAfter = retryAfter
            _ = try trip.certificate()
            #expect(trip.ca.answered == ["0/0/tls-alpn-01": 1])
            #expect(trip.waits.count == 7 && trip.waits.max() == .seconds(longest), "\(retryAfter) \(trip.waits)")
        }
        var date = try Trip("app.example.com")
        date.ca.pendingPolls = 1
        date.ca.retryAfter = "Fri, 15 Jan 2027 08:00:30 GMT"
        _ = try date.certificate()
        #expect(date.waits.first.map { $0 > .seconds(28) && $0 < .seconds(30) } == true)
    }

    @Test("no decision ends at the time limit, and one that comes too slowly after sixty questions")
    func bounds() throws {
        var trip = try Trip("app.example.com")
        trip.ca.pendingPolls = 100_000
        trip.ca.retryAfter = "60"
        #expect(try trip.failure().reason == "not done within 900.0 seconds")
        var quick = try Trip("app.example.com")
        quick.ca.pendingPolls = 100_000
        quick.ca.retryAfter = "1"
        #expect(try quick.failure().reason == "no decision after 60 questions")
        var processing = try Trip("app.example.com")
        processing.ca.processingPolls = 100_000
        processing.ca.retryAfter = "1"
        let failure = try processing.failure()
        #expect(failure.reason == "no decision after 60 questions" && failure.stage == .processing)
    }

    @Test("after a failed validation a new order takes the next type; the failure is counted")
    func fallBack() throws {
        var trip = try Trip("app.example.com")
        trip.ca.failingTypes = ["tls-alpn-01"]
        _ = try trip.certificate()
        #expect(trip.ca.presented.map(\.type) == [.tlsALPN01, .http01])
        #expect(trip.ca.orderPayloads.count == 2)
        #expect(trip.order.failedValidations.map(\.type) == [.tlsALPN01])
    }

    @Test("when every type failed, or as many as are allowed, the last problem is told")
    func allFail() throws {
        var trip = try Trip("app.example.com")
        trip.ca.failingTypes = ["tls-alpn-01", "http-01", "dns-01"]
        let failure = try trip.failure()
        #expect(failure.kind == .validation && failure.problem?.type == "connection" && failure.stage == .authorization)
        #expect(trip.order.failedValidations.map(\.type) == [.tlsALPN01, .http01, .dns01])
        var bounded = try Trip("app.example.com") { $0.maximumFailures = 2 }
        bounded.ca.failingTypes = ["tls-alpn-01", "http-01", "dns-01"]
        #expect(try bounded.failure().kind == .validation)
        #expect(bounded.order.failedValidations.map(\.type) == [.tlsALPN01, .http01])
    }

    @Test("several names: each failure is counted by itself, the one that worked is not")
    func severalNames() throws {
        var trip = try Trip("a.example.com", "*.example.com", challenges: [.http01, .dns01])
        trip.ca.failingTypes = ["http-01"]
        _ = try trip.certificate()
        #expect(trip.order.failedValidations.map(\.name.name) == ["a.example.com"])
        #expect(trip.ca.presented.map(\.type) == [.http01, .dns01, .dns01, .dns01])
    }

    @Test("a wildcard takes dns-01 whatever comes first; without it the order fails before anything is presented")
    func wildcard() throws {
        var trip = try Trip("*.example.com", "example.com")
        _ = try trip.certificate()
        #expect(trip.ca.presented.map(\.type) == [.dns01, .tlsALPN01])
        #expect(trip.ca.presented[0].dnsName == "_acme-challenge.example.com")
        var without = try Trip("*.example.com", challenges: [.http01])
        let failure = try without.failure()
        #expect(failure.stage == .challenge && failure.reason.hasPrefix("no usable challenge for *.example.com: configured are http-01"))
    }

    @Test("a challenge that cannot be presented gives way to the next in the same order, and counts for nothing")
    func unpresentable() throws {
        var trip = try Trip("app.example.com")
        trip.unpresentable = [.tlsALPN01]
        _ = try trip.certificate()
        #expect(trip.ca.orderPayloads.count == 1 && trip.order.failedValidations == [])
        var none = try Trip("app.example.com")
        none.unpresentable = [.tlsALPN01, .http01, .dns01]
        #expect(try none.failure().reason == "dns-01 of app.example.com could not be presented: no such thing")
        #expect(none.ca.answered == [:])
    }

    @Test("replaces and profile are sent; what was replaced already is ordered without replaces")
    func replaces() throws {
        var trip = try Trip("app.example.com") { ($0.replaces, $0.profile) = ("AQ.IQ", "short") }
        trip.ca.profiles = ["classic", "short"]
        _ = try trip.certificate()
        #expect(
            trip.ca.orderPayloads == [#"{"identifiers":[{"type":"dns","value":"app.example.com"}],"profile":"short","replaces":"AQ.IQ"}"#])
        var again = try Trip("app.example.com") { $0.replaces = "AQ.IQ" }
        again.ca.alreadyReplaced = ["AQ.IQ"]
        _ = try again.certificate()
        #expect(again.ca.orderPayloads.map { $0.contains("replaces") } == [true, false])
        var old = try Trip("app.example.com") { $0.replaces = "AQ.IQ" }
        old.ca.renewalInfo = false
        _ = try old.certificate()
        #expect(old.ca.orderPayloads.map { $0.contains("replaces") } == [false])
        var unknown = try Trip("app.example.com") { $0.profile = "nope" }
        unknown.ca.profiles = ["classic"]
        #expect(try unknown.failure().reason == "this CA has no profile nope; it has: classic")
    }

    @Test("an account that is gone is registered again, once")
    func lostAccount() throws {
        var trip = try Trip("app.example.com", account: try ACMEURL("https://ca.test/account/99"))
        _ = try trip.certificate()
        #expect(trip.ca.log.filter { $0 == "account" || $0 == "new-order" } == ["new-order", "account", "new-order"])
        #expect(trip.order.session.account?.text != "https://ca.test/account/99")
        var never = try Trip("app.example.com", account: try ACMEURL("https://ca.test/account/99"))
        let gone = ACMEResponse(status: 400, body: Array(#"{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}"#.utf8))
        never.ca.interventions = [("new-order", gone), ("new-order", gone)]
        #expect(try never.failure().problem?.type == "accountDoesNotExist")
    }

    @Test("an external account is bound where the CA wants it; without one the failure says so before anything is sent")
    func externalAccount() throws {
        var trip = try Trip("app.example.com", external: ExternalAccount(keyID: "kid-1", hmacKey: "c2VjcmV0"))
        trip.ca.externalKeyID = "kid-1"
        _ = try trip.certificate()
        var without = try Trip("app.example.com")
        without.ca.externalKeyID = "kid-1"
        let failure = try without.failure()
        #expect(failure.stage == .account && failure.reason.hasPrefix("this CA wants an external account"))
        #expect(without.ca.log == ["dir", "nonce"])
    }

    @Test("of several chains the one with the preferred issuer at its top is taken, the first if there is none")
    func alternates() throws {
        for (wanted, top) in [("Root Y", "Root Y"), ("Root Z", "Root Z"), ("Nobody", "Root X")] {
            var trip = try Trip("app.example.com") { $0.preferredIssuer = wanted }
            let chain = try trip.certificate().chain
            #expect(chain.last?.issuer.description == "CN=\(top)")
        }
    }

    @Test("lost connections and 5xx are tried again a few times, then the failure says that the CA is unavailable")
    func transient() throws {
        for path in ["dir", "nonce", "account", "new-order", "authz", "chall", "order", "finalize", "cert"] {
            var trip = try Trip("app.example.com")
            trip.ca.interventions = [(path, nil), (path, ACMEResponse(status: 503, fields: [.init("Retry-After", "5")])), (path, nil)]
            _ = try trip.certificate()
            #expect(trip.waits == [.seconds(2), .seconds(5), .seconds(8)], "\(path)")
            var down = try Trip("app.example.com")
            down.ca.interventions = Array(repeating: (path, nil), count: 4)
            #expect(try down.failure().kind == .unavailable)
        }
    }

    @Test("an order that was not ready to be finalized is asked for again, three times at most")
    func orderNotReady() throws {
        let body = Array(#"{"type":"urn:ietf:params:acme:error:orderNotReady"}"#.utf8)
        var trip = try Trip("app.example.com")
        trip.ca.interventions = Array(repeating: ("finalize", ACMEResponse(status: 403, body: body)), count: 2)
        _ = try trip.certificate()
        var never = try Trip("app.example.com")
        never.ca.interventions = Array(repeating: ("finalize", ACMEResponse(status: 403, body: body)), count: 3)
        let failure = try never.failure()
        #expect(failure.stage == .finalize && failure.problem?.type == "orderNotReady")
    }

    @Test("a CA that could not be reached, or has moved, is asked for its directory again")
    func movedDirectory() throws {
        var trip = try Trip("app.example.com")
        _ = try trip.certificate()
        trip.order = ACMEOrder(trip.order.plan, session: trip.order.session)
        trip.ca.interventions = [("new-order", ACMEResponse(status: 404))]
        _ = try trip.failure()
        let before = trip.ca.log.count
        trip.order = ACMEOrder(trip.order.plan, session: trip.order.session)
        _ = try trip.certificate()
        #expect(trip.ca.log[before] == "dir")
    }

    @Test("a rate limit ends the order with the moment that the CA names")
    func rateLimited() throws {
        let body = Array(#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#.utf8)
        for response in [
            ACMEResponse(status: 429, fields: [.init("Retry-After", "3600")], body: body),
            ACMEResponse(status: 429, fields: [.init("retry-after", "3600")]),
            ACMEResponse(status: 503, fields: [.init("Retry-After", "3600")], body: body),
        ] {
            var trip = try Trip("app.example.com")
            trip.ca.interventions = [("new-order", response)]
            let failure = try trip.failure()
            #expect(failure.kind == .rateLimited && failure.stage == .order && failure.retryAfter == trip.now.date + 3_600)
        }
    }

    @Test("redirects are not followed, and what is not understood names its stage")
    func nonsense() throws {
        let stages: [(String, ACMEStage)] = [
            ("dir", .directory), ("nonce", .nonce), ("account", .account), ("new-order", .order), ("authz", .authorization),
            ("chall", .challenge),
            ("order", .order), ("finalize", .finalize), ("cert", .verification),
        ]
        for (path, stage) in stages {
            var trip = try Trip("app.example.com")
            let redirect = ACMEResponse(status: 302, fields: [.init("Location", "https://elsewhere/")])
            trip.ca.interventions = [(path, redirect)]
            let failure = try trip.failure()
            #expect(failure.reason == "HTTP 302, which is not followed" && (failure.stage == stage || path == "cert"), "\(path) \(failure)")
            var garbage = try Trip("app.example.com")
            garbage.ca.interventions = [(path, ACMEResponse(status: 200, body: Array("{\"x\":\u{1B}".utf8)))]
            let refused = try garbage.failure()
            #expect(refused.stage == stage && refused.kind == .refused && !refused.description.contains("\u{1B}"), "\(path) \(refused)")
        }
        var noLocation = try Trip("app.example.com")
        noLocation.ca.omitsLocation = true
        #expect(try noLocation.failure().reason == "the CA's answer is not understood: no Location")
    }

    @Test("a certificate for another key, other names, another time, or a chain that is none, is not installed")
    func verification() throws {
        var otherKey = try Trip("app.example.com")
        otherKey.ca.issuesFor = P256.Signing.PrivateKey().publicKey
        #expect(try otherKey.failure() == ACMEFailure(.verification, .refused, "the certificate is for another key"))
        var otherName = try Trip("app.example.com", "b.example.com")
        otherName.ca.namesIssued = ["app.example.com"]
        #expect(try otherName.failure().reason == "the certificate does not name b.example.com")
        var expired = try Trip("app.example.com")
        expired.ca.validity = (-86_400, -1)
        #expect(try expired.failure().reason.hasPrefix("the certificate expired at "))
        var early = try Trip("app.example.com")
        early.ca.validity = (2 * 86_400, 90 * 86_400)
        #expect(try early.failure().reason.hasSuffix("check this machine's clock"))

        var good = try Trip("app.example.com")
        let certificate = try good.certificate()
        let (leaf, middle) = (try certificate.chain[0].serializeAsPEM().pemString, try certificate.chain[1].serializeAsPEM().pemString)
        let names = good.order.plan.names
        func check(_ pem: String) throws { _ = try ACMECertificate(pem: Array(pem.utf8), key: certificate.key, names: names, now: testNow) }
        // Of the same name, with another key.
        var other = try Trip("app.example.com")
        let impostor = try other.certificate().chain[1].serializeAsPEM().pemString
        try check(leaf)
        try check(leaf + "\n" + middle)
        for bad in [
            "", "x", middle, leaf + "\n" + leaf, leaf + "\n" + impostor, leaf + "\n" + P256.Signing.PrivateKey().pemRepresentation,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", Array(repeating: leaf, count: 11).joined(separator: "\n"),
        ] { #expect(throws: ACMEFault.self) { try check(bad) } }
    }

    @Test("an authorization for a name that was not ordered is refused")
    func foreignName() throws {
        var trip = try Trip("app.example.com")
        let body = #"{"status":"pending","identifier":{"type":"dns","value":"bank.example"},"challenges":[]}"#
        trip.ca.interventions = [("authz", ACMEResponse(status: 200, body: Array(body.utf8)))]
        #expect(try trip.failure().reason.contains("bank.example, which was not ordered"))
    }

    @Test("calls in the wrong order fail, and do not trap")
    func misuse() throws {
        let trip = try Trip("app.example.com")
        var order = trip.order
        func isFailure(_ action: ACMEOrder.Action) -> Bool { if case .failed = action { true } else { false } }
        #expect(isFailure(order.receive(ACMEResponse(status: 200), now: trip.now)))
        order = trip.order
        #expect(isFailure(order.challengeReady(now: trip.now)))
        order = trip.order
        #expect(isFailure(order.challengeUnavailable("x", now: trip.now)))
        order = trip.order
        #expect(isFailure(order.handleTimeout(now: trip.now)))
        order = trip.order
        _ = order.start(now: trip.now)
        #expect(isFailure(order.start(now: trip.now)))
        #expect(isFailure(order.receive(ACMEResponse(status: 200), now: trip.now)))
    }
}
