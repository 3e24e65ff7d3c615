/// The life of one request, without a channel: who is still to speak, and what happens when somebody falls silent.
///
///     connecting ──connected──► awaitingHead ──head──► streaming ──end──► answered ──request's end──► (next request)
///         │  ▲                     │  │  │                │                  ▲
///         │  └──pooled connection──┘  │  └──101──► relaying ──both ends──────┤
///         │     died, may retry       │                                      │
///         └──failure, time───────────►└──failure, time: an answer of ours ───┘
///
/// Each state but `relaying` also says whether the request is complete. Bytes, timers and routing are others' business.
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
        /// Both sides changed to another protocol: bytes pass, and each direction ends by itself.
        case relaying(isClientOpen: Bool, isUpstreamOpen: Bool)
        case answered(Request)
    }

    /// What stays true for the whole exchange.
    package struct Facts: Equatable {
        /// The client understands no 1xx.
        package var isHTTP10: Bool
        /// Something to change to was asked for, and may be.
        package var wantsUpgrade: Bool
        package var hasBody: Bool
        package var isIdempotent: Bool

        package init(isHTTP10: Bool, wantsUpgrade: Bool, hasBody: Bool, isIdempotent: Bool) {
            self.isHTTP10 = isHTTP10
            self.wantsUpgrade = wantsUpgrade
            self.hasBody = hasBody
            self.isIdempotent = isIdempotent
        }
    }

    package enum OnRequestPart: Equatable { case hold, forward, discard, finish }
    package enum OnConnected: Equatable { case sendHead, none }
    package enum OnHead: Equatable {
        case forward, forwardInformational, dropInformational, relay
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
        /// Of a relay: the client may still speak.
        case closeOutput
        case reject(ResponseFault)
    }
    package enum OnUpstreamLost: Equatable { case retry, answer, abort, none }
    package enum OnAnswer: Equatable { case finish, awaitRequestEnd, finishEarly }

    package private(set) var state = State.connecting(.receiving)
    package let facts: Facts
    private var isRetried = false

    package init(_ facts: Facts) { self.facts = facts }

    /// Whether nothing of the client's is read now.
    package var isRequestComplete: Bool {
        switch state {
        case .connecting(let request), .awaitingHead(let request, _), .streaming(let request, _), .answered(let request):
            request == .complete
        case .relaying(let isClientOpen, _): !isClientOpen
        }
    }

    /// Whether a complete answer of ours may still be given.
    package var isUnanswered: Bool {
        switch state {
        case .connecting, .awaitingHead: true
        case .streaming, .relaying, .answered: false
        }
    }

    package var isRelaying: Bool {
        if case .relaying = state { true } else { false }
    }

    package mutating func receiveRequestBody() -> OnRequestPart {
        switch state {
        case .connecting: .hold
        // Nobody has agreed yet to what it belongs to.
        case .awaitingHead where facts.wantsUpgrade: .hold
        case .awaitingHead(.receiving, _), .streaming(.receiving, _), .relaying(isClientOpen: true, isUpstreamOpen: _): .forward
        case .awaitingHead(.complete, _), .streaming(.complete, _), .relaying(isClientOpen: false, isUpstreamOpen: _), .answered: .discard
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
        case .relaying(_, isUpstreamOpen: true):
            state = .relaying(isClientOpen: false, isUpstreamOpen: true)
            return .forward
        case .relaying(_, isUpstreamOpen: false), .answered:
            state = .answered(.complete)
            return .finish
        }
    }

    package mutating func connected() -> OnConnected {
        switch state {
        case .connecting(let request):
            state = .awaitingHead(request, informational: 0)
            return .sendHead
        case .awaitingHead, .streaming, .relaying, .answered: return .none
        }
    }

    /// - Parameters:
    ///   - isReusable: the upstream will take another request after this response.
    ///   - isUpgrade: a 101 that names what was asked for.
    package mutating func receiveHead(code: Int, isReusable: Bool, isUpgrade: Bool, informationalLimit: Int) -> OnHead {
        switch state {
        case .awaitingHead(let request, let count):
            if code == 101 {
                guard facts.wantsUpgrade, isUpgrade else { return .reject(.unaskedUpgrade) }
                state = .relaying(isClientOpen: true, isUpstreamOpen: true)
                return .relay
            }
            if code < 200 {
                guard count < informationalLimit else { return .reject(.tooManyInformational) }
                state = .awaitingHead(request, informational: count + 1)
                return facts.isHTTP10 ? .dropInformational : .forwardInformational
            }
            state = .streaming(request, reuse: isReusable)
            return .forward
        case .connecting, .streaming, .relaying, .answered: return .reject(.unexpectedPart)
        }
    }

    package mutating func receiveBody() -> OnBody {
        switch state {
        case .streaming, .relaying: .forward
        case .connecting, .awaitingHead, .answered: .reject(.unexpectedPart)
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
        case .relaying(isClientOpen: true, _):
            state = .relaying(isClientOpen: true, isUpstreamOpen: false)
            return .closeOutput
        case .relaying(isClientOpen: false, _):
            state = .answered(.complete)
            return .finish(reuse: false)
        case .connecting, .awaitingHead, .answered: return .reject(.unexpectedPart)
        }
    }

    /// The upstream connection closed or broke off. A request is sent again only if nothing can have happened through it, RFC 9110
    /// §9.2.2: a connection that had waited in the pool may have been closed by the upstream while the request was on its way.
    /// - Parameter wasUnprocessed: the upstream says that it did nothing about the request, RFC 9113 §8.7.
    package mutating func upstreamLost(wasReused: Bool, wasUnprocessed: Bool = false) -> OnUpstreamLost {
        switch state {
        case .awaitingHead(let request, informational: 0)
        where !isRetried && !facts.hasBody && !facts.wantsUpgrade && (wasUnprocessed || wasReused && facts.isIdempotent):
            isRetried = true
            state = .connecting(request)
            return .retry
        case .connecting, .awaitingHead: return .answer
        case .streaming, .relaying: return .abort
        case .answered: return .none
        }
    }

    /// We give a complete response. Only while ``isUnanswered``.
    package mutating func answer() -> OnAnswer {
        switch state {
        case .connecting(.complete), .awaitingHead(.complete, _), .streaming(.complete, _), .relaying, .answered(.complete):
            state = .answered(.complete)
            return .finish
        case .connecting(.receiving), .awaitingHead(.receiving, _), .streaming(.receiving, _), .answered(.receiving):
            state = .answered(.receiving)
            return facts.hasBody ? .finishEarly : .awaitRequestEnd
        }
    }
}
