import FoundationEssentials
import Proxy
import Testing

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
private let at = Date(timeIntervalSince1970: 1_800_000_000)

/// Foundation's decoder of integers ends the process at the first.
let hostileNumbers = [
    "9007199254740993" + String(repeating: "0", count: 300) + "e-300", "9007199254740993e999", "1e30", "-1e19", "1e400", "0.5", "true",
    "null", "\"7\"", "[7]",
]

@Suite struct ACMEMessagesTests {
    @Test("a directory with everything, members that nobody knows included")
    func directory() throws {
        let read = try ACMEDirectory.read(
            bytes(
                #"""
                {"AbCd": "https://community.example/t", "newNonce": "https://ca/n", "newAccount": "https://ca/a", "newOrder": "https://ca/o",
                 "newAuthz": "https://ca/z", "revokeCert": "https://ca/r", "keyChange": "https://ca/k", "renewalInfo": "https://ca/i",
                 "meta": {"termsOfService": "https://ca/tos", "website": "https://ca", "caaIdentities": ["ca"], "externalAccountRequired": true,
                          "profiles": {"classic": "90 days", "shortlived": "6 days"}}}
                """#))
        #expect(read.newOrder.text == "https://ca/o")
        #expect(read.renewalInfo?.text == "https://ca/i")
        #expect(read.meta?.externalAccountRequired == true)
        #expect(read.meta?.profiles?.keys.sorted() == ["classic", "shortlived"])
    }

    @Test("a directory without meta, revokeCert, keyChange and renewalInfo is one; without newOrder it is none")
    func smallDirectory() throws {
        let small = try ACMEDirectory.read(bytes(#"{"newNonce":"https://ca/n","newAccount":"https://ca/a","newOrder":"https://ca/o"}"#))
        #expect(small.meta == nil && small.renewalInfo == nil)
        #expect(throws: ACMEFault("newOrder is missing")) {
            try ACMEDirectory.read(bytes(#"{"newNonce":"https://ca/n","newAccount":"https://ca/a"}"#))
        }
        #expect(throws: ACMEFault("not an https URL: http://ca/o")) {
            try ACMEDirectory.read(bytes(#"{"newNonce":"https://ca/n","newAccount":"https://ca/a","newOrder":"http://ca/o"}"#))
        }
    }

    @Test("https, or plain http to this machine; nothing else is a URL")
    func urls() throws {
        for good in [
            "https://ca/", "HTTPS://ca", "https://ca:14000/dir?x=1", "https://[2001:db8::1]:1/", "http://127.0.0.1:14000/dir",
            "http://localhost/",
            "http://[::1]:80/",
        ] { #expect(try ACMEURL(good).text == good) }
        for bad in [
            "", "https", "https:", "https://", "https:///x", "http://ca/", "http://127.0.0.1.evil.example/", "http://127.0.0.256/",
            "ftp://ca/",
            "https://user@ca/", "https://ca/ x", "https://ca/\n", "https://ca/#f", "https://ca/\"", "https://cä/", "https://ca:99999/",
            "https://ca:/", "https://ca:1:2/", "https://[::1", "file:///etc/passwd", "https://ca/" + String(repeating: "a", count: 2_048),
            "http://localhost@evil/", "http://127.0.0.1\\@evil/", "https://%5B/", "https://%5D/", "https://%5B%5D/", "https://[]/",
            "https://[x]/", "https://[127.0.0.1]/", "https://a%2Fb/", "https://a%00b/", "https://ca,x/", "https://ca*/",
        ] { #expect(throws: ACMEFault.self) { try ACMEURL(bad) } }
    }

    @Test("objects of RFC 8555's own examples")
    func examples() throws {
        let order = try ACMEOrderObject.read(
            bytes(
                #"""
                {"status": "valid", "expires": "2016-01-20T14:09:07.99Z",
                 "identifiers": [{"type": "dns", "value": "www.example.org"}, {"type": "dns", "value": "example.org"}],
                 "notBefore": "2016-01-01T00:00:00Z", "notAfter": "2016-01-08T00:00:00Z",
                 "authorizations": ["https://example.com/acme/authz/PAniVnsZcis", "https://example.com/acme/authz/r4HqLzrSrpI"],
                 "finalize": "https://example.com/acme/order/TOlocE8rfgo/finalize",
                 "certificate": "https://example.com/acme/cert/mAt3xBGaobw"}
                """#))
        #expect(order.status == .valid && order.authorizations.count == 2 && order.certificate != nil)
        let authorization = try ACMEAuthorization.read(
            bytes(
                #"""
                {"status": "pending", "expires": "2016-01-02T14:09:30Z", "identifier": {"type": "dns", "value": "www.example.org"}, "wildcard": true,
                 "challenges": [
                  {"type": "http-01", "url": "https://example.com/acme/chall/prV_B7yEyA4", "status": "pending", "token": "DGyRejmCefe7v4NfDGDKfA"},
                  {"type": "dns-persist-01", "url": "https://example.com/acme/chall/x", "status": "pending", "issuer-domain-names": ["ca"]}]}
                """#))
        #expect(authorization.name == "*.www.example.org")
        #expect(authorization.challenges.map(\.usableToken) == ["DGyRejmCefe7v4NfDGDKfA", nil])
        #expect(try ACMEAccount.read(bytes(#"{"status":"valid","contact":["mailto:a@b"],"orders":"https://ca/x"}"#)).status == .valid)
    }

    @Test(
        "a token that could be a path, or that is too short or long, is no token",
        arguments: [
            "../../../../etc/passwd", "short", "DGyRejmCefe7v4NfDGDKf=", String(repeating: "a", count: 129), "DGyRejmCefe7v4NfDGDKfA\r\n",
        ])
    func tokens(token: String) throws {
        let json = #"{"type":"http-01","url":"https://ca/c","status":"pending","token":"#
        let quoted = String(decoding: try JSONEncoder().encode(token), as: UTF8.self)
        #expect(try ACMEChallengeObject.read(bytes(json + quoted + "}")).usableToken == nil)
    }

    @Test("problems: subproblems, any garbage, hostile texts")
    func problems() throws {
        let compound = ACMEProblem(
            ACMEResponse(
                status: 403,
                body: bytes(
                    #"""
                    {"type": "urn:ietf:params:acme:error:malformed", "detail": "Some of the identifiers requested were rejected", "status": 400,
                     "subproblems": [
                      {"type": "urn:ietf:params:acme:error:malformed", "detail": "Invalid underscore", "identifier": {"type": "dns", "value": "_x.org"}},
                      {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no", "identifier": {"type": "dns", "value": "x.net"}}]}
                    """#)))
        #expect(compound.status == 403 && compound.type == "malformed")
        #expect(compound.subproblems.map(\.identifier) == ["_x.org", "x.net"])
        #expect(compound.description.hasSuffix("[_x.org: malformed (Invalid underscore); x.net: rejectedIdentifier (no)]"))

        let html = ACMEProblem(ACMEResponse(status: 502, body: bytes("<html>\r\nbad \u{1B}[31m" + String(repeating: "x", count: 9_999))))
        #expect(html.type == "about:blank" && html.description.hasPrefix(#"HTTP 502 (<html>\u{D}\u{A}bad \u{1B}[31m"#))
        #expect(html.description.utf8.count < 400)
        let wrong = ACMEProblem(ACMEResponse(status: 400, body: bytes(#"{"type":7,"detail":["x"],"subproblems":{"a":1},"status":"x"}"#)))
        #expect(wrong == ACMEProblem(type: "about:blank", status: 400))
        for status in hostileNumbers {
            let read = try? ACMEOrderObject.read(
                bytes(
                    #"{"status":"invalid","identifiers":[],"authorizations":[],"finalize":"https://ca/f","error":{"detail":"x","status":\#(status)}}"#
                ))
            #expect(read == nil || read?.error?.description.hasSuffix(" (x)") == true, "\(status.prefix(30))")
        }
        let many = bytes(#"{"type":"t","subproblems":["# + Array(repeating: #"{"type":"s"}"#, count: 999).joined(separator: ",") + "]}")
        #expect(ACMEProblem(ACMEResponse(status: 400, body: many)).subproblems.count == 16)
    }

    @Test("a document that is too long, too deep, has too many items or the wrong types is refused and never traps")
    func hostile() {
        let deep = String(repeating: "[", count: 200_000)
        let items = Array(repeating: #""https://ca/z""#, count: 129).joined(separator: ",")
        for text in [
            "", "null", "[]", "{}", "\"x\"", deep, #"{"a":"# + deep, "\u{0}", #"{"status":"valid""#,
            String(repeating: " ", count: 256 * 1_024 + 1),
            #"{"status":"other","identifiers":[],"authorizations":[],"finalize":"https://ca/f"}"#,
            #"{"status":"valid","identifiers":{},"authorizations":[],"finalize":"https://ca/f"}"#,
            #"{"status":"valid","identifiers":[],"authorizations":[\#(items)],"finalize":"https://ca/f"}"#,
        ] {
            #expect(throws: ACMEFault.self) { try ACMEOrderObject.read(bytes(text)) }
            _ = ACMEProblem(ACMEResponse(status: 400, body: bytes(text)))
        }
        #expect(throws: ACMEFault.self) { try ACMEOrderObject.read([0xFF, 0xFE, 0x7B]) }
    }

    @Test("Retry-After is seconds or a date, never past, never further than eight days")
    func retryAfter() {
        #expect(ACMEDates.retryAfter("120", now: at) == at + 120)
        #expect(ACMEDates.retryAfter("Fri, 15 Jan 2027 08:01:00 GMT", now: at) == at + 60)
        #expect(ACMEDates.retryAfter("Fri, 15 Jan 2010 08:01:00 GMT", now: at) == at)
        #expect(ACMEDates.retryAfter("99999999999999999999999999", now: at) == at + 8 * 86_400)
        for bad in [
            "", "-1", "1.5", "soon", "Fri, 32 Jan 2027 08:01:00 GMT", "Fri, 15 Jan 2027 08:01:00", "Friday, 15-Jan-27 08:01:00 GMT",
        ] {
            #expect(ACMEDates.retryAfter(bad, now: at) == nil)
        }
        #expect(ACMEDates.retryAfter(nil, now: at) == nil)
    }

    @Test("timestamps of RFC 3339, its own examples too")
    func timestamps() {
        let table: [(String, TimeInterval)] = [
            ("1970-01-01T00:00:00Z", 0), ("1985-04-12T23:20:50.52Z", 482_196_050.52), ("1996-12-19T16:39:57-08:00", 851_042_397),
            ("1937-01-01T12:00:27.87+00:20", -1_041_337_172.13), ("2024-02-29T00:00:00z", 1_709_164_800),
            ("2000-03-01t00:00:00Z", 951_868_800),
        ]
        for (text, seconds) in table {
            #expect((ACMEDates.parseTimestamp(text)?.timeIntervalSince1970).map { abs($0 - seconds) < 0.001 } == true, "\(text)")
        }
        for bad in [
            "", "2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z", "2024-01-01", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00Zx", "２024-01-01T00:00:00Z",
        ] { #expect(ACMEDates.parseTimestamp(bad) == nil, "\(bad)") }
    }

    @Test("a renewal window, and none that ends before it starts")
    func renewalInfo() throws {
        let info = try ACMERenewalInfo.read(
            bytes(
                #"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"},"explanationURL":"https://ca.example/why"}"#
            ))
        #expect(info.end.timeIntervalSince(info.start) == 86_400 && info.explanation == "https://ca.example/why")
        for bad in [
            #"{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-02T04:00:00Z"}}"#,
            #"{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-03T04:00:00Z"}}"#,
            #"{"suggestedWindow":{"start":"x","end":"y"}}"#,
            "{}",
        ] { #expect(throws: ACMEFault.self) { try ACMERenewalInfo.read(bytes(bad)) } }
    }

    @Test("links with rel=alternate, however many are in a field")
    func links() {
        let response = ACMEResponse(
            status: 200,
            fields: [
                .init("Link", #"<https://ca/dir>;rel="index""#),
                .init("LINK", #"<https://ca/1>; rel="alternate", <https://ca/2>;rel=alternate"#),
                .init("Link", "<broken;rel=alternate"), .init("Link", #"<https://ca/3>;title="x";rel="alternate""#),
            ])
        #expect(response.links("alternate") == ["https://ca/1", "https://ca/2", "https://ca/3"])
    }

    /// The example of RFC 9773 §4.1.
    @Test("the identifier of a certificate in requests for renewal information")
    func certificateID() {
        let authority: [UInt8] = [
            0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4,
        ]
        for serial: [UInt8] in [[0x87, 0x65, 0x43, 0x21], [0x00, 0x87, 0x65, 0x43, 0x21]] {
            #expect(CertificateID.text(authorityKeyIdentifier: authority, serialNumber: serial) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
        }
        #expect(CertificateID.text(authorityKeyIdentifier: [1], serialNumber: [0x21]) == "AQ.IQ")
    }
}
