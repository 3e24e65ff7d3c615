/// The life of one request, without a channel: who is still to speak, and what happens when somebody falls silent.
///
///     connecting ──connected──► awaitingHead ──head──► streaming ──end──► answered ──request's end──► (next request)
///         │  ▲                     │  │  │                │                  ▲
///         │  └──pooled connection──┘  │  └──101──► switching ──end──► relay  │
///         │     died, may retry       │                                      │
///         └──failure, time───────────►└──failure, time: an answer of ours ───┘
///
/// Each state but `switching` also says whether the request is complete. Bytes, timers and routing are the handler's business.
package struct ProxyExchange: Equatable {
    package enum Request: Equatable {
        case receiving
        case complete
    }

    package enum State: Equatable {
        /// Parts of the request are held.
        case connecting(Request)
        case awaitingHead(Request, informational: Int)
        case streaming(Request, reuse: Bool)
        case switching
        case answered(Request)
    }

    /// What stays true for the whole exchange.
    package struct Facts: Equatable {
        package var isHTTP10: Bool
        package var wantsWebSocket: Bool
        package var hasBody: Bool
        package var isIdempotent: Bool

        package init(isHTTP10: Bool, wantsWebSocket: Bool, hasBody: Bool, isIdempotent: Bool) {
            self.isHTTP10 = isHTTP10
            self.wantsWebSocket = wantsWebSocket
            self.hasBody = hasBody
            self.isIdempotent = isIdempotent
        }
    }

    package enum OnRequestPart: Equatable { case hold, forward, discard, finish }
    package enum OnConnected: Equatable { case sendHead, none }
    package enum OnHead: Equatable {
        case forward, forwardInformational, dropInformational, switchProtocols
        case reject(ResponseFault)
    }
    package enum OnBody: Equatable {
        case forward
        case reject(ResponseFault)
    }
    package enum OnEnd: Equatable {
        case finish(reuse: Bool)
        /// The client still sends: nobody will read it.
        case finishEarly
        /// The request's end is about to come: it has no body.
        case awaitRequestEnd
        case relay
        case reject(ResponseFault)
    }
    package enum OnUpstreamLost: Equatable { case retry, answer, abort, none }
    package enum OnAnswer: Equatable { case finish, awaitRequestEnd, linger }

    package private(set) var state = State.connecting(.receiving)
    package let facts: Facts
    private var isRetried = false

    package init(_ facts: Facts) { self.facts = facts }

    package var isRequestComplete: Bool {
        switch state {
        case .connecting(let request), .awaitingHead(let request, _), .streaming(let request, _), .answered(let request):
            request == .complete
        case .switching: true
        }
    }

    /// Whether a complete answer of ours may still be given.
    package var isUnanswered: Bool {
        switch state {
        case .connecting, .awaitingHead: true
        case .streaming, .switching, .answered: false
        }
    }

    package mutating func receiveRequestBody() -> OnRequestPart {
        switch state {
        case .connecting: .hold
        case .awaitingHead(.receiving, _), .streaming(.receiving, _): .forward
        case .awaitingHead(.complete, _), .streaming(.complete, _), .switching, .answered: .discard
        }
    }

    package mutating func receiveRequestEnd() -> OnRequestPart {
        switch state {
        case .connecting:
            state = .connecting(.complete)
            return .hold
        case .awaitingHead(_, let count):
            state = .awaitingHead(.complete, informational: count)
            return .forward
        case .streaming(_, let reuse):
            state = .streaming(.complete, reuse: reuse)
            return .forward
        case .switching: return .discard
        case .answered:
            state = .answered(.complete)
            return .finish
        }
    }

    package mutating func connected() -> OnConnected {
        switch state {
        case .connecting(let request):
            state = .awaitingHead(request, informational: 0)
            return .sendHead
        case .awaitingHead, .streaming, .switching, .answered: return .none
        }
    }

    package mutating func receiveHead(_ head: CheckedResponse, informationalLimit: Int) -> OnHead {
        switch state {
        case .awaitingHead(let request, let count):
            if head.status.code == 101 {
                guard facts.wantsWebSocket, head.acceptsWebSocket, request == .complete else { return .reject(.unaskedUpgrade) }
                state = .switching
                return .switchProtocols
            }
            if head.status.code < 200 {
                guard count < informationalLimit else { return .reject(.tooManyInformational) }
                state = .awaitingHead(request, informational: count + 1)
                return facts.isHTTP10 ? .dropInformational : .forwardInformational
            }
            state = .streaming(request, reuse: head.keepAlive)
            return .forward
        case .connecting, .streaming, .switching, .answered: return .reject(.unexpectedPart)
        }
    }

    package mutating func receiveBody() -> OnBody {
        switch state {
        case .streaming: .forward
        case .connecting, .awaitingHead, .switching, .answered: .reject(.unexpectedPart)
        }
    }

    package mutating func receiveEnd() -> OnEnd {
        switch state {
        case .streaming(.complete, let reuse):
            state = .answered(.complete)
            return .finish(reuse: reuse)
        case .streaming(.receiving, _):
            state = .answered(.receiving)
            return facts.hasBody ? .finishEarly : .awaitRequestEnd
        case .switching: return .relay
        case .connecting, .awaitingHead, .answered: return .reject(.unexpectedPart)
        }
    }

    /// The upstream connection closed or broke off. A request is sent again only if nothing can have happened through it, RFC 9110
    /// §9.2.2: a connection that had waited in the pool may have been closed by the upstream while the request was on its way.
    package mutating func upstreamLost(wasReused: Bool) -> OnUpstreamLost {
        switch state {
        case .awaitingHead(let request, informational: 0) where wasReused && !isRetried && facts.isIdempotent && !facts.hasBody:
            isRetried = true
            state = .connecting(request)
            return .retry
        case .connecting, .awaitingHead: return .answer
        case .streaming, .switching: return .abort
        case .answered: return .none
        }
    }

    /// We give a complete response. Only while ``isUnanswered``.
    package mutating func answer() -> OnAnswer {
        switch state {
        case .connecting(.complete), .awaitingHead(.complete, _), .streaming(.complete, _), .switching, .answered(.complete):
            state = .answered(.complete)
            return .finish
        case .connecting(.receiving), .awaitingHead(.receiving, _), .streaming(.receiving, _), .answered(.receiving):
            state = .answered(.receiving)
            return facts.hasBody ? .linger : .awaitRequestEnd
        }
    }
}
