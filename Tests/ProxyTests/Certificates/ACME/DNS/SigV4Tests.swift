import FoundationEssentials
import Proxy
import Testing

/// The cases of AWS's Signature Version 4 test suite, and the example of its documentation.
@Suite struct SigV4Tests {
    private static let date = Date(timeIntervalSince1970: 1_440_938_160)
    private static let sessionToken =
        "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/"
        + "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lI"
        + "ZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="

    private func authorization(
        _ method: String, query: [(name: String, value: String)] = [], fields: [(name: String, value: String)] = [], body: String = "",
        session: String? = nil, host: String = "example.amazonaws.com", service: String = "service"
    ) -> [(name: String, value: String)] {
        SigV4(
            accessKeyID: "AKIDEXAMPLE", secretAccessKey: Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            sessionToken: session.map(Secret.init),
            region: "us-east-1", service: service
        ).sign(
            SigV4.Request(
                method: method, path: "/", query: query, fields: [(name: "Host", value: host)] + fields, body: Array(body.utf8)),
            at: Self.date)
    }

    private func signature(_ fields: [(name: String, value: String)]) -> String {
        String(fields.last?.value.split(separator: "Signature=").last ?? "")
    }

    @Test("get-vanilla: date, scope, signed fields and signature")
    func vanilla() {
        let fields = authorization("GET")
        #expect(fields.map(\.name) == ["X-Amz-Date", "Authorization"] && fields[0].value == "20150830T123600Z")
        #expect(
            fields[1].value
                == "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, "
                + "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")
    }

    @Test("get-vanilla-query-order-key, get-utf8-query, post-vanilla, post-x-www-form-urlencoded, post-sts-header-before")
    func suite() {
        #expect(
            signature(authorization("GET", query: [("Param2", "value2"), ("Param1", "value1")]))
                == "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500")
        #expect(
            signature(authorization("GET", query: [("\u{1234}", "bar")]))
                == "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04")
        #expect(signature(authorization("POST")) == "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b")
        #expect(
            signature(authorization("POST", fields: [("Content-Type", "application/x-www-form-urlencoded")], body: "Param1=value1"))
                == "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a")
        #expect(
            signature(authorization("POST", session: Self.sessionToken))
                == "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead")
    }

    @Test("the example of the documentation: ListUsers of IAM")
    func listUsers() {
        let fields = authorization(
            "GET", query: [("Action", "ListUsers"), ("Version", "2010-05-08")],
            fields: [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")], host: "iam.amazonaws.com", service: "iam")
        #expect(signature(fields) == "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7")
    }

    @Test("all but unreserved characters are encoded")
    func encoding() {
        #expect(SigV4.encode("aZ0-_.~ /+*é\n") == "aZ0-_.~%20%2F%2B%2A%C3%A9%0A")
    }
}
