import NIOConcurrencyHelpers
import NIOPosix
import Proxy
import Testing

@Suite struct Route53ProviderTests {
    private static let record = TXTRecord(name: "_acme-challenge.a.example.com", value: "value-1")

    /// A private zone, and a public one with the same name and one above.
    private struct Account: Sendable {
        var values: [String] = []
        var changes: [String] = []
        var polls = 0

        mutating func answer(_ request: APIStub.Request) -> HTTPStub.Answer {
            guard request.fields["Authorization"].first?.hasPrefix("AWS4-HMAC-SHA256 Credential=AKID/") == true else {
                return .init(status: 403, body: "<ErrorResponse><Error><Code>MissingAuthenticationToken</Code></Error></ErrorResponse>")
            }
            let path = request.uri.split(separator: "?")[0]
            switch path {
            case "/2013-04-01/hostedzonesbyname":
                return .init(
                    body: "<?xml version=\"1.0\"?>\n<ListHostedZonesByNameResponse xmlns=\"https://x/\"><HostedZones>"
                        + zone("Z1", "a.example.com.", isPrivate: true) + zone("Z2", "a.example.com.") + zone("Z3", "example.com.")
                        + "</HostedZones></ListHostedZonesByNameResponse>")
            case "/2013-04-01/hostedzone/Z2/rrset":
                let records = values.map { "<ResourceRecord><Value>\($0)</Value></ResourceRecord>" }.joined()
                let set =
                    values.isEmpty
                    ? ""
                    : "<ResourceRecordSet><Name>_acme-challenge.a.example.com.</Name><Type>TXT</Type><TTL>77</TTL><ResourceRecords>\(records)</ResourceRecords></ResourceRecordSet>"
                return .init(body: "<R><ResourceRecordSets>\(set)</ResourceRecordSets></R>")
            case "/2013-04-01/hostedzone/Z2/rrset/":
                guard let document = XMLElement.read(Array(request.body.utf8)), let action = document.descendant("Action")?.text else {
                    return .init(status: 400)
                }
                let new = document.descendant("ResourceRecords")?.all("ResourceRecord").compactMap { $0.first("Value")?.text } ?? []
                changes.append("\(action) \(document.descendant("TTL")?.text ?? "") \(new.joined(separator: ","))")
                values = action == "DELETE" ? [] : new
                return .init(body: "<R><ChangeInfo><Id>/change/C1</Id><Status>INSYNC</Status></ChangeInfo></R>")
            default: return .init(status: 404, body: "<ErrorResponse><Error><Code>NoSuchHostedZone</Code></Error></ErrorResponse>")
            }
        }

        private func zone(_ id: String, _ name: String, isPrivate: Bool = false) -> String {
            "<HostedZone><Id>/hostedzone/\(id)</Id><Name>\(name)</Name><Config><PrivateZone>\(isPrivate)</PrivateZone></Config></HostedZone>"
        }
    }

    private func provider(_ stub: APIStub, zone: String? = nil) throws -> Route53Provider {
        Route53Provider(
            signer: SigV4(
                accessKeyID: "AKID", secretAccessKey: Secret("aws-secret-0123"), sessionToken: Secret("aws-session-0123"),
                region: "us-east-1", service: "route53"), hostedZone: zone, endpoint: try stub.url,
            group: MultiThreadedEventLoopGroup.singleton)
    }

    @Test("the longest public zone; values at one name are kept together, and the last is deleted as it stands")
    func twoValues() async throws {
        let account = NIOLockedValueBox(Account())
        let stub = try await APIStub { request in account.withLockedValue { $0.answer(request) } }
        let provider = try provider(stub)
        let second = TXTRecord(name: Self.record.name, value: "value-2")
        try await provider.add(Self.record)
        try await provider.add(Self.record)
        try await provider.add(second)
        try await provider.remove(Self.record)
        try await provider.remove(Self.record)
        try await provider.remove(second)
        #expect(
            account.withLockedValue { $0.changes } == [
                #"UPSERT 60 "value-1""#, #"UPSERT 77 "value-1","value-2""#, #"UPSERT 77 "value-2""#, #"DELETE 77 "value-2""#,
            ])
        #expect(stub.seen.withLockedValue { $0.allSatisfy { $0.fields["X-Amz-Security-Token"] == ["aws-session-0123"] } })
        try await stub.close()
    }

    @Test("a change is waited for until it is INSYNC")
    func inSync() async throws {
        let account = NIOLockedValueBox(Account())
        let stub = try await APIStub { request in
            if request.uri == "/2013-04-01/change/C1" {
                return .init(body: "<R><ChangeInfo><Id>/change/C1</Id><Status>INSYNC</Status></ChangeInfo></R>")
            }
            var answer = account.withLockedValue { $0.answer(request) }
            answer.body = answer.body.split(separator: "INSYNC").joined(separator: "PENDING")
            return answer
        }
        try await provider(stub, zone: "Z2").add(Self.record)
        #expect(stub.seen.withLockedValue { $0.contains { $0.uri == "/2013-04-01/change/C1" } })
        try await stub.close()
    }

    @Test("what another gateway has overwritten is added again, beside its value, four times at most", arguments: [1, 3, 9])
    func overwritten(times: Int) async throws {
        let account = NIOLockedValueBox(Account())
        let stub = try await APIStub { request in
            account.withLockedValue {
                let answer = $0.answer(request)
                // The other had read the set before this change, and writes now.
                if request.method == .POST, $0.changes.count <= times { $0.values = [#""theirs""#] }
                return answer
            }
        }
        let text = await failureText { try await provider(stub, zone: "Z2").add(Self.record) }
        if times > 3 {
            #expect(text?.contains("_acme-challenge.a.example.com: others write to this record set all the time") == true)
        } else {
            #expect(text == nil)
            #expect(account.withLockedValue { $0.values } == [#""theirs""#, #""value-1""#])
        }
        #expect(account.withLockedValue { $0.changes.count } == min(times + 1, 4))
        try await stub.close()
    }

    @Test("throttling and a change before this one are waited for, three times")
    func throttling() async throws {
        let account = NIOLockedValueBox(Account())
        let count = NIOLockedValueBox(0)
        let stub = try await APIStub { request in
            let number = count.withLockedValue {
                $0 += 1
                return $0
            }
            switch number {
            case 1:
                return .init(
                    status: 400,
                    body: "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>")
            case 3: return .init(status: 400, body: "<ErrorResponse><Error><Code>PriorRequestNotComplete</Code></Error></ErrorResponse>")
            default: return account.withLockedValue { $0.answer(request) }
            }
        }
        try await provider(stub, zone: "Z2").add(Self.record)
        #expect(account.withLockedValue { $0.values } == [#""value-1""#])
        try await stub.close()
    }

    @Test(
        "errors come with code, message and what to look at",
        arguments: [
            (
                "<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>The request signature</Message></Error></ErrorResponse>",
                "403 SignatureDoesNotMatch: The request signature; check access-key-id"
            ),
            (
                "<ErrorResponse><Error><Code>AccessDenied</Code><Message>User is not authorized</Message></Error></ErrorResponse>",
                "403 AccessDenied: User is not authorized; the key lacks a permission"
            ),
            (
                "<InvalidChangeBatch xmlns='x'><Messages><Message>Tried to delete</Message></Messages></InvalidChangeBatch>",
                "403 InvalidChangeBatch: Tried to delete"
            ),
            ("nonsense", "403: nonsense"),
        ])
    func errors(body: String, expected: String) async throws {
        let stub = try await APIStub { _ in .init(status: 403, body: body) }
        let provider = try provider(stub)
        #expect(await failureText { try await provider.add(Self.record) }?.contains(expected) == true)
        try await stub.close()
    }

    @Test("no zone, or only a private one")
    func noZone() async throws {
        let account = NIOLockedValueBox(Account())
        let stub = try await APIStub { request in
            var answer = account.withLockedValue { $0.answer(request) }
            answer.body = answer.body.split(separator: "false").joined(separator: "true")
            return answer
        }
        let provider = try provider(stub)
        #expect(
            await failureText { try await provider.add(Self.record) }?.contains(
                "no public hosted zone for _acme-challenge.a.example.com, only a private one") == true)
        #expect(
            await failureText { try await provider.add(TXTRecord(name: "x.other.org", value: "v")) }?.contains(
                "no public hosted zone for x.other.org:") == true)
        try await stub.close()
    }
}
