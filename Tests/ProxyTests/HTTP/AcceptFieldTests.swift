import Proxy
import Testing

@Suite struct AcceptFieldTests {
    @Test(
        "the form of an error page is the one with the greatest weight, of equals the one that is named first",
        arguments: [
            (nil, "text/plain"), ("", "text/plain"), ("*/*", "text/plain"), ("image/png", "text/plain"),
            ("application/json", "application/json"), ("Application/JSON;charset=utf-8", "application/json"),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
            ("application/json, text/plain, */*", "application/json"), ("*/*, application/json", "text/plain"),
            ("application/json;q=0.1, text/html;q=0", "application/json"), ("text/html;q=0", "text/plain"),
            ("application/json;q=0.5, text/html;q=0.501", "text/html"), ("text/html; q=0.2 , application/json ; q=0.9", "application/json"),
            ("application/json;q=0.3, */*;q=0.2", "application/json"), ("application/json;q=0.2, */*;q=0.3", "text/plain"),
            ("text/plain;q=0, */*", "application/json"), ("text/plain;q=0", "application/json"),
            ("text/plain;q=0, application/*;q=0.1, text/*", "text/html"),
            ("text/plain;q=0, application/json;q=0.000, text/html;q=0", "text/plain"),
            ("text/html;q=2, application/json;q=0.1", "application/json"),
            ("text/html;q=0.1234, application/json;q=0.1", "application/json"),
            ("text/html;q=, application/json;q=-1, */*;q=x", "text/plain"), (";q=1,,;,text/html", "text/html"),
            ("text/html5", "text/plain"),
        ] as [(String?, String)])
    func form(_ accept: String?, _ type: String) {
        let fields = ErrorPage.badGateway.render(accept: accept, requestID: "1").fields
        #expect(fields.first { $0.0 == "Content-Type" }?.1.hasPrefix(type) == true)
    }

    @Test("a request id of another's making is escaped in every form")
    func requestID() {
        func page(_ accept: String, _ id: String) -> String { ErrorPage.badGateway.render(accept: accept, requestID: id).body }
        #expect(page("application/json", "a\"b\\c<i>").contains(#""requestID":"a\"b\\c<i>"}"#))
        #expect(page("text/html", "a\"<i>&").contains("Request a\"&lt;i&gt;&amp;</small>"))
        // A character of its own, but to a browser it is none.
        func brackets(_ id: String) -> Int { page("text/html", id).utf8.count { $0 == UInt8(ascii: "<") } }
        #expect(brackets("<\u{338}") == brackets("1"))
    }
}
