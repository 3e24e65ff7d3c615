import NIOHTTP1
import Proxy
import Testing

@Suite struct ProxyExchangeTests {
    private func exchange(hasBody: Bool = false, idempotent: Bool = true, webSocket: Bool = false) -> ProxyExchange {
        ProxyExchange(.init(isHTTP10: false, wantsWebSocket: webSocket, hasBody: hasBody, isIdempotent: idempotent))
    }

    private func response(_ code: Int, _ fields: [(String, String)] = [("content-length", "0")]) throws -> CheckedResponse {
        let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: code), headers: HTTPHeaders(fields))
        return try ResponseRules.check(head, isHEAD: false).get()
    }

    @Test("the usual order: connect, request, head, body, end")
    func usual() throws {
        var one = exchange(hasBody: true)
        #expect(one.receiveRequestBody() == .hold)
        #expect(one.connected() == .sendHead)
        #expect(one.receiveRequestBody() == .forward)
        #expect(one.receiveRequestEnd() == .forward)
        #expect(one.receiveHead(try response(200), informationalLimit: 16) == .forward)
        #expect(one.receiveBody() == .forward)
        #expect(one.receiveEnd() == .finish(reuse: true))
        #expect(one.isRequestComplete)
    }

    @Test("parts of a response out of order are refused in every state")
    func outOfOrder() throws {
        var one = exchange()
        #expect(one.receiveBody() == .reject(.unexpectedPart))
        #expect(one.receiveEnd() == .reject(.unexpectedPart))
        #expect(one.receiveHead(try response(200), informationalLimit: 16) == .reject(.unexpectedPart))
        _ = one.connected()
        #expect(one.receiveBody() == .reject(.unexpectedPart))
        #expect(one.receiveHead(try response(200), informationalLimit: 16) == .forward)
        #expect(one.receiveHead(try response(200), informationalLimit: 16) == .reject(.unexpectedPart))
    }

    @Test("only an idempotent request without a body, on a pooled connection, before any answer, and once, is tried again")
    func retry() throws {
        func lost(_ one: ProxyExchange, reused: Bool = true, informational: Bool = false) throws -> ProxyExchange.OnUpstreamLost {
            var one = one
            _ = one.connected()
            if informational { _ = one.receiveHead(try response(103, []), informationalLimit: 16) }
            return one.upstreamLost(wasReused: reused)
        }
        #expect(try lost(exchange()) == .retry)
        #expect(try lost(exchange(), reused: false) == .answer)
        #expect(try lost(exchange(hasBody: true)) == .answer)
        #expect(try lost(exchange(idempotent: false)) == .answer)
        #expect(try lost(exchange(), informational: true) == .answer)
        var twice = exchange()
        _ = twice.connected()
        #expect(twice.upstreamLost(wasReused: true) == .retry)
        #expect(twice.connected() == .sendHead)
        #expect(twice.upstreamLost(wasReused: true) == .answer)
    }

    @Test("an answer of ours waits for the end of a request without a body, and for no other")
    func ownAnswer() {
        var bodiless = exchange()
        #expect(bodiless.answer() == .awaitRequestEnd)
        #expect(bodiless.receiveRequestEnd() == .finish)
        var upload = exchange(hasBody: true)
        #expect(upload.answer() == .linger)
        #expect(upload.receiveRequestBody() == .discard)
    }

    @Test("101 counts only if it was asked for, agrees, and the request is complete")
    func switching() throws {
        let agrees = try response(101, [("connection", "upgrade"), ("upgrade", "WebSocket")])
        let other = try response(101, [("connection", "upgrade"), ("upgrade", "h2c")])
        func on(_ head: CheckedResponse, asked: Bool, complete: Bool = true) -> ProxyExchange.OnHead {
            var one = exchange(webSocket: asked)
            _ = one.connected()
            if complete { _ = one.receiveRequestEnd() }
            return one.receiveHead(head, informationalLimit: 16)
        }
        #expect(on(agrees, asked: true) == .switchProtocols)
        #expect(on(agrees, asked: false) == .reject(.unaskedUpgrade))
        #expect(on(other, asked: true) == .reject(.unaskedUpgrade))
        #expect(on(agrees, asked: true, complete: false) == .reject(.unaskedUpgrade))
    }
}
