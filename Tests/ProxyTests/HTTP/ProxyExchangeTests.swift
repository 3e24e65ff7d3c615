import Proxy
import Testing

@Suite struct ProxyExchangeTests {
    private func exchange(hasBody: Bool = false, idempotent: Bool = true, webSocket: Bool = false) -> ProxyExchange {
        ProxyExchange(.init(isHTTP10: false, wantsUpgrade: webSocket, hasBody: hasBody, isIdempotent: idempotent))
    }

    private func head(_ one: inout ProxyExchange, _ code: Int, isUpgrade: Bool = false) -> ProxyExchange.OnHead {
        one.receiveHead(code: code, isReusable: true, isUpgrade: isUpgrade, informationalLimit: 16)
    }

    @Test("the usual order: connect, request, head, body, end")
    func usual() {
        var one = exchange(hasBody: true)
        #expect(one.receiveRequestBody() == .hold)
        #expect(one.connected() == .sendHead)
        #expect(one.receiveRequestBody() == .forward)
        #expect(one.receiveRequestEnd() == .forward)
        #expect(head(&one, 200) == .forward)
        #expect(one.receiveBody() == .forward)
        #expect(one.receiveEnd() == .finish(reuse: true))
        #expect(one.isRequestComplete)
    }

    @Test("parts of a response out of order are refused in every state")
    func outOfOrder() {
        var one = exchange()
        #expect(one.receiveBody() == .reject(.unexpectedPart))
        #expect(one.receiveEnd() == .reject(.unexpectedPart))
        #expect(head(&one, 200) == .reject(.unexpectedPart))
        _ = one.connected()
        #expect(one.receiveBody() == .reject(.unexpectedPart))
        #expect(head(&one, 200) == .forward)
        #expect(head(&one, 200) == .reject(.unexpectedPart))
    }

    @Test("only an idempotent request without a body, on a pooled connection, before any answer, and once, is tried again")
    func retry() {
        func lost(_ one: ProxyExchange, reused: Bool = true, informational: Bool = false) -> ProxyExchange.OnUpstreamLost {
            var one = one
            _ = one.connected()
            if informational { _ = head(&one, 103) }
            return one.upstreamLost(wasReused: reused)
        }
        #expect(lost(exchange()) == .retry)
        #expect(lost(exchange(), reused: false) == .answer)
        #expect(lost(exchange(hasBody: true)) == .answer)
        #expect(lost(exchange(idempotent: false)) == .answer)
        #expect(lost(exchange(), informational: true) == .answer)
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
        #expect(upload.answer() == .finishEarly)
        #expect(upload.receiveRequestBody() == .discard)
    }

    @Test("101 counts only if it was asked for and agrees; then each direction ends by itself")
    func relaying() {
        func on(asked: Bool, agrees: Bool) -> ProxyExchange.OnHead {
            var one = exchange(webSocket: asked)
            _ = one.connected()
            return head(&one, 101, isUpgrade: agrees)
        }
        #expect(on(asked: true, agrees: true) == .relay)
        #expect(on(asked: false, agrees: true) == .reject(.unaskedUpgrade))
        #expect(on(asked: true, agrees: false) == .reject(.unaskedUpgrade))

        var one = exchange(webSocket: true)
        _ = one.connected()
        #expect(one.receiveRequestBody() == .hold, "nobody has agreed to what it belongs to")
        #expect(one.receiveRequestEnd() == .forward)
        #expect(head(&one, 101, isUpgrade: true) == .relay)
        #expect(one.receiveRequestBody() == .forward)
        #expect(one.receiveBody() == .forward)
        var other = one
        #expect(one.receiveRequestEnd() == .forward)
        #expect(one.receiveRequestBody() == .discard)
        #expect(one.receiveEnd() == .finish(reuse: false))
        #expect(other.receiveEnd() == .closeOutput)
        #expect(other.receiveRequestBody() == .forward)
        #expect(other.receiveRequestEnd() == .finish)
    }

    @Test("what the upstream says that it did not process may be sent again, whatever the method")
    func unprocessed() {
        var one = exchange(idempotent: false)
        _ = one.connected()
        #expect(one.upstreamLost(wasReused: false, wasUnprocessed: true) == .retry)
    }
}
