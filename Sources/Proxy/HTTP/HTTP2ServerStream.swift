import NIOCore
import NIOHPACK
import NIOHTTP2

/// One request of an ``HTTP2Connection``. Frames are held until the end of the turn, so that the last one can say that it is the last.
final class HTTP2ServerStream: ClientStream {
    private let id: HTTP2StreamID
    private unowned let connection: HTTP2Connection
    let exchange: ProxyRequest
    private(set) var isFlushDue = false
    private var heldHead: HPACKHeaders?
    private var heldData: ByteBuffer?
    private var isEnded = false
    /// A frame that says nothing but the end has been written, but not left.
    private(set) var isEndWaiting = false
    private var isInputEnded = false
    private var isClosed = false
    private var isRelay = false
    private var sent = 0
    private var buffered = 0
    private var wasWritable = true
    /// Received and not passed on yet; given back to the window when it is.
    private var unread = 0
    private var credit = 0
    private var window: Int
    /// An answer counts until the client has taken it.
    private var work: ClientWork?
    /// For the last bytes of an answer that the client's window keeps back.
    private var lastBytesDeadline = NIODeadline.distantFuture

    init(_ id: HTTP2StreamID, connection: HTTP2Connection) {
        self.id = id
        self.connection = connection
        window = connection.initialWindow
        exchange = ProxyRequest(service: connection.service, loop: connection.loop, isHTTP2: true)
    }

    // MARK: Frames from the client

    func begin(_ headers: HPACKHeaders, endStream: Bool) {
        let service = connection.service
        let checked: Result<CheckedRequest, RequestRefusal>
        switch HTTP2Fields.section(headers, limits: service.limits) {
        case .failure(let fault):
            return refuse(.fault(fault), headers, endStream: endStream)
        case .success(let (section, pseudo)):
            // Checked by NIO's handler, which knows the pseudo-header fields of each kind of request.
            guard let method = pseudo.method else {
                connection.loop.counters.refused(.http2Error)
                return reset(.protocolError)
            }
            if pseudo.scheme?.isEmpty ?? false {
                return refuse(.refusal(.bad("empty :scheme")), headers, endStream: endStream)
            }
            checked = RequestRules.check(
                method: method, path: pseudo.path ?? .empty, authority: pseudo.authority, protocol: pseudo.protocol, section,
                endStream: endStream, forwarded: service.mode == .agent ? .keep : .drop)
        }
        switch checked {
        case .failure(let refusal):
            refuse(.refusal(refusal), headers, endStream: endStream)
        case .success(let request):
            let visitor = connection.identity.visitor(of: request)
            guard let work = service.beginWork(for: visitor) else {
                return exchange.refuse(
                    .tooManyRequests(retryAfter: service.limits.retryAfter), request: request, from: self, hasBody: !endStream,
                    identity: connection.identity)
            }
            self.work = work.token
            exchange.start(
                request, from: self, identity: &connection.identity, visitor: visitor, host: connection.hosts.resolve(request),
                work: work.token)
        }
        isInputEnded = endStream
        if endStream, !isClosed { exchange.receiveEnd(nil) }
    }

    private func refuse(_ page: ErrorPage, _ headers: HPACKHeaders, endStream: Bool) {
        exchange.refuse(
            page, request: CheckedRequest(refused: headers), from: self, hasBody: !endStream, identity: connection.identity)
    }

    func receive(_ bytes: ByteBuffer, padding: Int, endStream: Bool) {
        let count = bytes.readableBytes
        isInputEnded = endStream
        credit += padding
        if count > 0 {
            unread += count
            connection.hold(count)
            exchange.receiveBody(bytes)
            readingMayGoOn()
        }
        if endStream, !isClosed { exchange.receiveEnd(nil) }
    }

    func receiveTrailers(_ headers: HPACKHeaders) {
        isInputEnded = true
        switch HTTP2Fields.section(headers, limits: connection.service.limits) {
        case .failure: reset(.protocolError)
        case .success(let (section, _)): exchange.receiveEnd(section)
        }
    }

    var deadline: NIODeadline { min(exchange.deadline, lastBytesDeadline) }

    func deadlineReached() {
        if exchange.deadline <= connection.loop.clock.now { exchange.deadlineReached() } else { reset(.cancel) }
    }

    /// The stream is no more, for whatever reason.
    func closed() {
        isClosed = true
        work = nil
        _ = connection.grow(by: connection.initialWindow - window)
        connection.released(unread)
        unread = 0
        exchange.clientLost()
    }

    // MARK: ClientStream

    var isWritable: Bool { buffered < (wasWritable ? HTTP2Window.sendBufferHigh : HTTP2Window.sendBufferLow) }
    var takesRawChunks: Bool { false }

    func carries(_ response: CheckedResponse) -> Bool {
        let section = response.section
        if connection.peerLimits.certainlyAllow(section) { return true }
        var (headers, indexing) = (HPACKHeaders([(":status", String(response.code))]), HeaderIndexing())
        HTTP2Fields.add(section, to: &headers, &indexing)
        headers.add(name: "content-length", value: String(Int.max))
        return connection.peerLimits.allow(headers)
    }

    func send(_ response: CheckedResponse) {
        writeHeld()
        let length: Int? =
            switch response.framing {
            case .none: response.statedLength
            case .length(let count): count
            case .chunked, .untilClose: nil
            }
        heldHead = head(response.code, response.section, length: length)
    }

    func sendInformational(_ response: CheckedResponse) {
        // RFC 9113 §8.6: 101 does not exist, and was refused before.
        connection.write(id, .headers(.init(headers: head(response.code, response.section, length: nil))))
        connection.flushSoon()
    }

    func sendUpgrade(_ response: CheckedResponse, token: String) {
        isRelay = true
        var section = response.section
        section.lines.removeAll { $0.kind == .webSocketAccept }
        heldHead = head(200, section, length: nil)
    }

    func send(_ page: ErrorPage, accept: String?, requestID: String, isHEAD: Bool) -> Int {
        if exchange.request?.section.value(of: "content-type").map({ isGRPC($0) }) ?? false {
            heldHead = Self.grpcHead(page)
            return 0
        }
        let (fields, text) = page.render(accept: accept, requestID: requestID)
        var headers = HPACKHeaders([(":status", String(page.status))])
        for (name, value) in fields { headers.add(name: name.lowercased(), value: value) }
        headers.add(name: "content-length", value: String(text.utf8.count))
        heldHead = headers
        if !isHEAD { heldData = ByteBuffer(string: text) }
        return isHEAD ? 0 : text.utf8.count
    }

    private func isGRPC(_ type: FieldSection.Span) -> Bool {
        exchange.request?.section.text(type).lowercased().hasPrefix("application/grpc") ?? false
    }

    /// An answer without a body, as clients of gRPC understand it: "Trailers-Only" of the gRPC protocol.
    private static func grpcHead(_ page: ErrorPage) -> HPACKHeaders {
        let code =
            switch page.status {
            case 404: 12  // UNIMPLEMENTED
            case 429: 8  // RESOURCE_EXHAUSTED
            case 408, 502, 503, 504: 14  // UNAVAILABLE
            default: 13  // INTERNAL
            }
        return [":status": "200", "content-type": "application/grpc", "grpc-status": String(code), "grpc-message": page.text]
    }

    func sendBody(_ bytes: ByteBuffer) {
        guard !isEnded, !isClosed, bytes.readableBytes > 0 else { return }
        writeHeld()
        heldData = bytes
    }

    func sendEnd(_ trailers: FieldSection?) {
        guard !isEnded, !isClosed else { return }
        isEnded = true
        if let trailers {
            writeHeld()
            let fields = HTTP2Fields.trailers(trailers, &connection.indexing)
            guard connection.peerLimits.allow(fields) else { return reset(.internalError) }
            connection.write(id, .headers(.init(headers: fields, endStream: true)), promise: endPromise())
        } else if let head = heldHead, heldData == nil {
            heldHead = nil
            connection.write(id, .headers(.init(headers: head, endStream: true)), promise: endPromise())
        } else if heldData != nil {
            writeHeld(endStream: true)
        } else {
            writeEnd()
        }
        // The stream may have closed with that: then nobody will say that it is over.
        flush()
    }

    private func writeEnd() {
        guard connection.takesEmptyData else {
            return connection.write(id, .headers(.init(headers: [:], endStream: true)), promise: endPromise())
        }
        isEndWaiting = true
        let promise = connection.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [self] _ in isEndWaiting = false }
        if let end = endPromise() { promise.futureResult.cascade(to: end) }
        connection.write(id, .data(.init(data: .byteBuffer(ByteBuffer()), endStream: true)), promise: promise)
    }

    /// RFC 9113 §8.1: when a whole answer has left before the request ended, the rest of the request is not wanted. A reset that overtook
    /// the answer would take it away.
    private func endPromise() -> EventLoopPromise<Void>? {
        guard !isRelay, !exchange.exchange.isRequestComplete else { return nil }
        let promise = connection.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenSuccess { [self] in reset(.noError) }
        return promise
    }

    func flush() {
        isFlushDue = true
        connection.flushSoon()
    }

    /// Writes what was held, as it will not be the last.
    func writeHeld(endStream: Bool = false) {
        isFlushDue = false
        if let head = heldHead {
            heldHead = nil
            connection.write(id, .headers(.init(headers: head)))
        }
        guard var data = heldData else { return }
        heldData = nil
        let count = data.readableBytes
        // What waits for the client's window is not to keep the whole of what was read with it.
        if data.storageCapacity > (buffered >= HTTP2Window.uncounted ? 2 : 4) * count { data = ByteBuffer(bytes: data.readableBytesView) }
        sent += count
        let payload = HTTP2Frame.FramePayload.data(.init(data: .byteBuffer(data), endStream: endStream))
        guard sent > HTTP2Window.uncounted else { return connection.write(id, payload, promise: endStream ? endPromise() : nil) }
        buffered += count
        let promise = connection.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [self] _ in
            buffered -= count
            if lastBytesDeadline != .distantFuture { awaitLastBytes() }
            noteWritability()
        }
        if endStream, let end = endPromise() { promise.futureResult.cascade(to: end) }
        connection.write(id, payload, promise: promise)
        noteWritability()
    }

    private func noteWritability() {
        let isWritable = isWritable
        guard isWritable != wasWritable else { return }
        wasWritable = isWritable
        guard !isClosed else { return }
        exchange.clientWritabilityChanged(isWritable)
        if isWritable { readingMayGoOn() }
    }

    func readingMayGoOn() {
        guard unread > 0 || credit > 0, exchange.mayRead, !isClosed else { return }
        if unread > 0 { connection.released(unread) }
        credit += unread
        unread = 0
        // RFC 9113 §6.9: nothing more will come that would need a window.
        guard credit >= window / 4, !isInputEnded else { return }
        // Taken at once: more may be on its way at a time.
        let target = min(window * 2, connection.service.limits.streamWindow)
        let growth = connection.grow(by: max(0, target - window))
        window += growth
        connection.write(id, .windowUpdate(windowSizeIncrement: credit + growth))
        credit = 0
        connection.flushSoon()
    }

    func exchangeEnded(_ end: ExchangeEnd) {
        switch end {
        // A stream whose request goes on is reset behind the answer's last frame.
        case .complete, .early, .awaitsRequestEnd:
            flush()
            awaitLastBytes()
        case .cutOff: reset(.internalError)
        case .relayLost: reset(.cancel)
        }
    }

    private func awaitLastBytes() {
        lastBytesDeadline = connection.loop.clock.deadline(after: connection.service.limits.bodyIdle)
    }

    func reset(_ code: HTTP2ErrorCode) {
        guard !isClosed else { return }
        heldHead = nil
        heldData = nil
        connection.write(id, .rstStream(code))
        connection.flushSoon()
    }

    private func head(_ code: Int, _ section: FieldSection, length: Int?) -> HPACKHeaders {
        var headers = HPACKHeaders()
        headers.reserveCapacity(section.lines.count + 2)
        headers.add(name: ":status", value: String(code))
        HTTP2Fields.add(section, to: &headers, &connection.indexing)
        if let length { headers.add(name: "content-length", value: String(length), indexing: .nonIndexable) }
        return headers
    }
}
