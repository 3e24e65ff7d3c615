import NIOCore
import Proxy
import Testing

@Suite struct ChallengeResponderTests {
    /// Knows one token; decides about another later.
    private struct Responder: ChallengeResponder {
        let promise: EventLoopPromise<String?>?

        func answer(token: String, host: String, isRelayed: Bool, on loop: any EventLoop) -> ChallengeAnswer {
            switch token {
            case ChallengeResponderTests.known: .keyAuthorization(token + ".thumbprint")
            case ChallengeResponderTests.later: promise.map { .wait($0.futureResult) } ?? .unknown
            default: .unknown
            }
        }
    }

    static let known = "known-token-of-enough-length"
    static let later = "later-token-of-enough-length"

    private func request(_ token: String, method: String = "GET", more: String = "") -> String {
        "\(method) /.well-known/acme-challenge/\(token) HTTP/1.1\r\nHost: app.example.com\r\n\(more)\r\n"
    }

    @Test("a known token is answered with its key authorization and nothing else")
    func known() throws {
        let proxy = try EmbeddedProxy(scheme: .http, challenges: Responder(promise: nil))
        try proxy.send(request(Self.known, more: "Accept: text/html\r\n"))
        let answer = try proxy.received()
        #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n") && answer.hasSuffix("\r\n\r\n\(Self.known).thumbprint"))
        #expect(answer.contains("application/octet-stream"))
        try proxy.send(request(Self.known, method: "HEAD"))
        let head = try proxy.received()
        #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n") && head.hasSuffix("\r\n\r\n"))
        #expect(proxy.dialed.isEmpty)
    }

    @Test(
        "anything else goes its usual way",
        arguments: [
            "unknown-token-of-enough-length", "short", "known-token-of-enough-length/", "known-token-of-enough-length?x",
            "%6bnown-token-of-enough-length",
            "../../known-token-of-enough-length",
        ])
    func unknown(token: String) throws {
        let proxy = try EmbeddedProxy(scheme: .http, challenges: Responder(promise: nil))
        try proxy.send(request(token))
        #expect(proxy.dialed.count == 1)
    }

    @Test("only GET and HEAD ask for a key authorization")
    func methods() throws {
        let proxy = try EmbeddedProxy(scheme: .http, challenges: Responder(promise: nil))
        try proxy.send(request(Self.known, method: "POST", more: "Content-Length: 0\r\n"))
        #expect(proxy.dialed.count == 1)
    }

    @Test("an answer may come later, and the connection goes on", arguments: [true, false])
    func later(isKnown: Bool) throws {
        let box = Box()
        let proxy = try EmbeddedProxy(scheme: .http, challenges: box)
        box.promise = proxy.loop.makePromise(of: String?.self)
        try proxy.send(request(Self.later) + request(Self.known))
        #expect(try proxy.received() == "")
        box.promise?.succeed(isKnown ? "here it is" : nil)
        proxy.loop.run()
        let answer = try proxy.received()
        #expect(answer.hasPrefix(isKnown ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 404 Not Found\r\n"))
        #expect(answer.contains("here it is") == isKnown && answer.hasSuffix("\(Self.known).thumbprint"))
        #expect(proxy.dialed.isEmpty)
    }

    @Test("a client that leaves meanwhile is no trouble")
    func gone() throws {
        let box = Box()
        let proxy = try EmbeddedProxy(scheme: .http, challenges: box)
        box.promise = proxy.loop.makePromise(of: String?.self)
        try proxy.send(request(Self.later))
        proxy.client.pipeline.fireChannelInactive()
        box.promise?.succeed("too late")
        proxy.loop.run()
        #expect(try proxy.received() == "")
    }

    /// The promise is made when the loop is there. One thread has it.
    private final class Box: ChallengeResponder, @unchecked Sendable {
        var promise: EventLoopPromise<String?>?

        func answer(token: String, host: String, isRelayed: Bool, on loop: any EventLoop) -> ChallengeAnswer {
            Responder(promise: promise).answer(token: token, host: host, isRelayed: isRelayed, on: loop)
        }
    }
}
