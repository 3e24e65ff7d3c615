import NIOCore

/// One exchange's way to an upstream, in whichever protocol: a whole connection of HTTP/1.1, or a stream of HTTP/2. What comes back goes
/// to the ``ProxyRequest`` that leased it. Everything happens on one event loop; nothing is flushed by itself.
protocol UpstreamStream: AnyObject {
    var isWritable: Bool { get }
    /// It has waited in the pool, where the upstream may have closed it.
    var isReused: Bool { get }
    /// Chunks of a request may be passed on with their framing.
    var takesRawChunks: Bool { get }

    func lease(to request: ProxyRequest)
    func send(_ head: OutgoingRequest)
    func sendBody(_ bytes: ByteBuffer)
    /// In a relay: nothing more will be sent.
    func sendEnd(_ trailers: FieldSection?)
    func flush()
    /// Back-pressure of the client.
    func setReadPaused(_ paused: Bool)
    /// The response is complete.
    func finish(reuse: Bool)
    /// The request is over, the response is not wanted. `work` is kept until the upstream has let go of it.
    func abandon(_ work: ClientWork?)
}

/// A request as it goes to the next hop.
package struct OutgoingRequest {
    var request: CheckedRequest
    /// Sent as Host.
    var host: String
    /// Field lines of ours, ready to be sent.
    var added: ByteBuffer
    /// The protocol to change to.
    var upgrade: String?
    /// For an upgrade that the client asked for without one: RFC 8441.
    var webSocketKey: String?

    package init(request: CheckedRequest, host: String, added: ByteBuffer, upgrade: String? = nil) {
        self.request = request
        self.host = host
        self.added = added
        self.upgrade = upgrade
    }
}

/// The client's side of one exchange, in whichever protocol.
protocol ClientStream: AnyObject {
    var isWritable: Bool { get }
    /// Chunks of a response may be passed on with their framing.
    var takesRawChunks: Bool { get }

    /// Whether the head of a response is not too long for the client's protocol.
    func carries(_ response: CheckedResponse) -> Bool
    func send(_ response: CheckedResponse)
    func sendInformational(_ response: CheckedResponse)
    /// Both sides change to another protocol.
    func sendUpgrade(_ response: CheckedResponse, token: String)
    /// An answer of ours, whole but for its end. Not flushed.
    /// - Returns: bytes of its body.
    func send(_ page: ErrorPage, accept: String?, requestID: String, isHEAD: Bool) -> Int
    func sendBody(_ bytes: ByteBuffer)
    /// In a relay: nothing more will be sent.
    func sendEnd(_ trailers: FieldSection?)
    func flush()
    /// ``ProxyRequest/mayRead`` may have become true.
    func readingMayGoOn()
    /// Flushes.
    func exchangeEnded(_ end: ExchangeEnd)
}

extension ClientStream {
    func carries(_ response: CheckedResponse) -> Bool { true }
}

enum ExchangeEnd: Equatable {
    /// Answer and request are through.
    case complete
    /// The answer is through; the client still sends what nobody will read.
    case early
    /// The answer is through; the end of the request, which has no body, is about to come.
    case awaitsRequestEnd
    /// The answer had begun and cannot be finished: the client must not take half for the whole.
    case cutOff
    /// The other side of a relay broke off.
    case relayLost
}
