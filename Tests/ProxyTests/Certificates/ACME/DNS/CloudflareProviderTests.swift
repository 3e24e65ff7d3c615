import NIOConcurrencyHelpers
import NIOPosix
import Proxy
import Testing

@Suite struct CloudflareProviderTests {
    private static let token = "cf-token-0123456789"
    private static let record = TXTRecord(name: "_acme-challenge.app.Example.com.", value: "value-1")

    /// One zone, `example.com`, as Cloudflare shows it.
    private struct Zone: Sendable {
        var records: [String: (name: String, content: String)] = [:]
        var next = 0

        mutating func answer(_ request: APIStub.Request) -> HTTPStub.Answer {
            guard request.fields["Authorization"] == ["Bearer \(CloudflareProviderTests.token)"] else {
                return refusal(403, #"{"code":9109,"message":"Invalid access token"}"#)
            }
            if request.uri.hasPrefix("/zones?name=") {
                return success(request.uri == "/zones?name=example.com" ? #"[{"id":"zone1","name":"example.com"}]"# : "[]")
            }
            let records = "/zones/zone1/dns_records"
            switch request.method {
            case .GET where request.uri.hasPrefix(records + "?type=TXT&name="):
                let name = request.uri.split(separator: "=")[2].split(separator: "&")[0]
                let found = self.records.filter { $0.value.name == name }
                    .map { #"{"id":"\#($0.key)","name":"\#($0.value.name)","content":"\#($0.value.content)"}"# }
                return success("[" + found.joined(separator: ",") + "]")
            case .POST where request.uri == records:
                let parts = request.body.split(separator: "\"").map(String.init)
                let name = parts[parts.firstIndex(of: "name")! + 2]
                let content = request.body.split(separator: #"\""#)[1]
                next += 1
                self.records["r\(next)"] = (name, #"\"\#(content)\""#)
                return success(#"{"id":"r\#(next)"}"#)
            case .DELETE:
                let id = String(request.uri.split(separator: "/").last ?? "")
                guard self.records.removeValue(forKey: id) != nil else {
                    return refusal(404, #"{"code":81044,"message":"Record does not exist."}"#)
                }
                return success(#"{"id":"\#(id)"}"#)
            default: return refusal(405, #"{"code":10405,"message":"Method not allowed"}"#)
            }
        }

        private func success(_ result: String) -> HTTPStub.Answer {
            .init(body: #"{"success":true,"errors":[],"messages":[],"result":\#(result),"result_info":{"count":1}}"#)
        }

        private func refusal(_ status: Int, _ error: String) -> HTTPStub.Answer {
            .init(status: status, body: #"{"success":false,"errors":[\#(error)],"messages":[],"result":null}"#)
        }
    }

    @Test("codes that are no numbers end in an error, not in the process", arguments: hostileNumbers)
    func hostileCodes(number: String) async throws {
        let text = try await fault(
            .init(status: 400, body: #"{"success":false,"errors":[{"code":1,"error_chain":[{"code":\#(number)}]},{"code":\#(number)}]}"#))
        #expect(text.contains("cloudflare: GET zones: 400"))
    }

    private func provider(_ stub: APIStub, token: String = Self.token) throws -> CloudflareProvider {
        CloudflareProvider(token: Secret(token), endpoint: try stub.url, group: MultiThreadedEventLoopGroup.singleton)
    }

    /// What an error says when every request is answered so.
    private func fault(_ answer: HTTPStub.Answer) async throws -> String {
        let stub = try await APIStub { _ in answer }
        let provider = try provider(stub)
        let text = await failureText { try await provider.add(Self.record) }
        try await stub.close()
        return text ?? ""
    }

    @Test("two values at one name come and go by themselves; adding and removing again changes nothing")
    func twoValues() async throws {
        let zone = NIOLockedValueBox(Zone())
        let stub = try await APIStub { request in zone.withLockedValue { $0.answer(request) } }
        let provider = try provider(stub)
        let second = TXTRecord(name: Self.record.name, value: "value-2")
        func contents() -> [String] { zone.withLockedValue { $0.records.values.map { "\($0.name) \($0.content)" }.sorted() } }
        try await provider.add(Self.record)
        try await provider.add(Self.record)
        try await provider.add(second)
        #expect(contents() == [#"_acme-challenge.app.example.com \"value-1\""#, #"_acme-challenge.app.example.com \"value-2\""#])
        try await provider.remove(Self.record)
        try await provider.remove(Self.record)
        #expect(contents() == [#"_acme-challenge.app.example.com \"value-2\""#])
        try await provider.remove(second)
        #expect(contents() == [])
        // The zone was looked for by ever shorter names.
        let asked = stub.seen.withLockedValue { $0.map(\.uri) }.prefix(3)
        #expect(asked == ["/zones?name=_acme-challenge.app.example.com", "/zones?name=app.example.com", "/zones?name=example.com"])
        try await stub.close()
    }

    @Test("errors of the envelope come with their codes, causes and what to look at")
    func errors() async throws {
        let wrong = try await fault(
            .init(
                status: 403,
                body: #"{"success":false,"errors":[{"code":9109,"message":"Invalid access token"}],"messages":[],"result":null}"#))
        #expect(wrong.contains("403: 9109 Invalid access token; check the token: it needs Zone:Read and DNS:Edit"))
        let format = try await fault(
            .init(
                status: 400,
                body: #"{"success":false,"errors":[{"code":6003,"message":"Invalid request headers","error_chain":[{"code":6111,"#
                    + #""message":"Invalid format for Authorization header"}]}],"messages":[],"result":null}"#))
        #expect(format.contains("6003 Invalid request headers (6111 Invalid format for Authorization header); check the token"))
        let none = try await fault(.init(body: #"{"success":true,"errors":[],"messages":[],"result":[]}"#))
        #expect(none.contains("sees no zone for _acme-challenge.app.example.com"))
        let limit = try await fault(
            .init(
                status: 429, fields: [("Retry-After", "300")],
                body: #"{"success":false,"errors":[{"code":10000,"message":"Rate limited"}],"result":null}"#))
        #expect(limit.contains("429: 10000 Rate limited; the rate limit is used up, again in 300 s"))
        #expect(
            try await fault(.init(status: 502, body: "<html>\u{1B}[2J</html>")).contains(
                #"502, not an answer of Cloudflare: <html>\u{1B}[2J"#))
        #expect(try await fault(.init(hangsUp: true)).hasPrefix("cloudflare: GET http://127.0.0.1"))
        #expect(
            try await fault(.init(body: #"{"success":true,"result":[],"x":""# + String(repeating: "x", count: 300_000) + #""}"#))
                .contains("longer than 262144 bytes"))
    }

    @Test("a short rate limit is waited for")
    func retry() async throws {
        let zone = NIOLockedValueBox(Zone())
        let refusals = NIOLockedValueBox(1)
        let stub = try await APIStub { request in
            let isRefused = refusals.withLockedValue { count in
                count -= 1
                return count >= 0
            }
            return isRefused
                ? .init(status: 429, fields: [("Retry-After", "1")], body: #"{"success":false,"errors":[]}"#)
                : zone.withLockedValue { $0.answer(request) }
        }
        try await provider(stub).add(Self.record)
        #expect(zone.withLockedValue { $0.records.count } == 1)
        try await stub.close()
    }
}
