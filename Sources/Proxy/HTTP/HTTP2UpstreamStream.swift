import NIOCore
import NIOHPACK
import NIOHTTP2

/// One exchange on an ``HTTP2Upstream``.
final class HTTP2UpstreamStream: UpstreamStream {
    private let connection: HTTP2Upstream
    private var id: HTTP2StreamID?
    private var request: ProxyRequest?
    let isReused: Bool
    private var hasHead = false
    /// Bytes of the body that are still to come, if that is known.
    private var missing: Int?
    private var isOutputEnded = false
    /// The frame that ends the request has been written, but not left.
    private var isEndWaiting = false
    /// The same of one that is DATA without data.
    private(set) var isEmptyEndWaiting = false
    private var isInputEnded = false
    private var isClosed = false
    private var isReadPaused = false
    private var buffered = 0
    private var wasWritable = true
    /// Received while the client takes nothing.
    private var heldBack = 0
    private var window: Int
    /// Given back since the window grew.
    private var taken = 0

    init(connection: HTTP2Upstream, isReused: Bool) {
        self.connection = connection
        self.isReused = isReused
        window = Self.initialWindow(connection.limits)
    }

    private static func initialWindow(_ limits: ProxyLimits) -> Int { min(HTTP2Window.shared, limits.streamWindow) }

    var isWritable: Bool { buffered < (wasWritable ? HTTP2Window.sendBufferHigh : HTTP2Window.sendBufferLow) }
    var takesRawChunks: Bool { false }

    func lease(to request: ProxyRequest) { self.request = request }

    func send(_ outgoing: OutgoingRequest) {
        let headers = headers(outgoing)
        guard connection.peerLimits.allow(headers) else {
            connection.discard()
            return fail { [self] in
                self.request?.fail("the request's head is longer than the upstream takes", .fault(.sectionTooLong))
            }
        }
        guard let id = connection.begin(self) else {
            return fail { [self] in
                self.request?.upstreamLost(self, .broken("the upstream closed the connection"), wasUnprocessed: true)
            }
        }
        self.id = id
        isOutputEnded = !outgoing.request.hasBody
        let promise = connection.eventLoop?.makePromise(of: Void.self)
        promise?.futureResult.assumeIsolated().whenFailure { [self] error in
            // It was held back, and the upstream said goodbye meanwhile.
            guard error is NIOHTTP2Errors.CreatedStreamAfterGoaway else { return }
            connection.forget(id)
            lost(.broken("the upstream closed the connection"), wasUnprocessed: true)
        }
        connection.write(id, .headers(.init(headers: headers, endStream: isOutputEnded)), promise: promise)
    }

    /// Not from within the call of the one who has just leased it.
    private func fail(_ body: @escaping () -> Void) {
        isClosed = true
        connection.pool.clock.eventLoop.assumeIsolated().execute(body)
    }

    private func headers(_ outgoing: OutgoingRequest) -> HPACKHeaders {
        let request = outgoing.request
        var headers = HPACKHeaders()
        headers.reserveCapacity(request.section.lines.count + 12)
        headers.add(name: ":method", value: request.methodText)
        headers.add(name: ":scheme", value: "http")
        headers.add(name: ":authority", value: outgoing.host, indexing: connection.indexing.indexing(":authority", outgoing.host))
        headers.add(name: ":path", value: request.targetText, indexing: connection.indexing.indexing(":path", request.targetText))
        HTTP2Fields.add(request.section, to: &headers, &connection.indexing)
        for line in String(buffer: outgoing.added).split(separator: "\r\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            HTTP2Fields.add(
                line[..<colon].lowercased(), String(HeaderTokens.trimmed(line[line.index(after: colon)...])), to: &headers,
                &connection.indexing)
        }
        if case .length(let count) = request.framing { headers.add(name: "content-length", value: String(count), indexing: .nonIndexable) }
        if request.expectsContinue { headers.add(name: "expect", value: "100-continue") }
        if request.acceptsTrailers { headers.add(name: "te", value: "trailers") }
        return headers
    }

    func sendBody(_ bytes: ByteBuffer) {
        guard let id, !isOutputEnded, !isClosed, bytes.readableBytes > 0, let eventLoop = connection.eventLoop else { return }
        let count = bytes.readableBytes
        buffered += count
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [self] _ in
            buffered -= count
            noteWritability()
        }
        connection.write(id, .data(.init(data: .byteBuffer(bytes))), promise: promise)
        noteWritability()
    }

    func sendEnd(_ trailers: FieldSection?) {
        guard let id, !isOutputEnded, !isClosed else { return }
        isOutputEnded = true
        if let trailers {
            let fields = HTTP2Fields.trailers(trailers, &connection.indexing)
            guard connection.peerLimits.allow(fields) else { return connection.write(id, .rstStream(.internalError)) }
            connection.write(id, .headers(.init(headers: fields, endStream: true)), promise: endPromise())
        } else if !connection.takesEmptyData {
            connection.write(id, .headers(.init(headers: [:], endStream: true)), promise: endPromise())
        } else {
            isEmptyEndWaiting = true
            connection.write(id, .data(.init(data: .byteBuffer(ByteBuffer()), endStream: true)), promise: endPromise())
        }
    }

    private func endPromise() -> EventLoopPromise<Void>? {
        guard let promise = connection.eventLoop?.makePromise(of: Void.self) else { return nil }
        isEndWaiting = true
        promise.futureResult.assumeIsolated().whenComplete { [self] _ in (isEndWaiting, isEmptyEndWaiting) = (false, false) }
        return promise
    }

    func flush() { connection.flush() }

    func setReadPaused(_ paused: Bool) {
        isReadPaused = paused
        if !paused { giveBack() }
    }

    func finish(reuse: Bool) {
        request = nil
        guard !isClosed else { return }
        guard let id else { return connection.discard() }
        // RFC 9113 §8.1: who has answered need not read the rest of the request, which would wait for a window for ever.
        guard isEndWaiting else { return }
        connection.write(id, .rstStream(.cancel))
        connection.flush()
    }

    func abandon(_ work: ClientWork?) {
        request = nil
        guard !isClosed else { return }
        guard let id else { return connection.discard() }
        connection.write(id, .rstStream(.cancel))
        connection.flush()
    }

    func connectionWritabilityChanged() { noteWritability() }

    private func noteWritability() {
        let isWritable = isWritable
        guard isWritable != wasWritable else { return }
        wasWritable = isWritable
        if !isClosed { request?.upstreamWritabilityChanged() }
    }

    // MARK: Called by the connection

    func receive(_ headers: HPACKHeaders, endStream: Bool) {
        guard let request else { return }
        switch HTTP2Fields.section(headers, limits: connection.limits) {
        case .failure(let fault): return request.reject(.malformed(fault))
        case .success(let (section, pseudo)):
            if hasHead {
                isInputEnded = true
                return request.receiveResponseEnd(section)
            }
            switch ResponseRules.check(
                code: pseudo.status ?? 0, reason: .empty, isHTTP10: false, section, isHEAD: request.isHEAD, rawChunks: false,
                untilClose: false)
            {
            case .failure(let fault): return request.reject(fault)
            case .success(let response):
                hasHead = response.code >= 200
                if hasHead {
                    missing =
                        switch response.framing {
                        case .none: 0
                        case .length(let count): count
                        case .chunked, .untilClose: nil
                        }
                }
                // HTTP/1.1 has no place for what may come behind such an answer: it could only be taken for the next one.
                if hasHead, response.framing == .none || missing == 0 && request.clientTakesRawChunks {
                    request.receive(response)
                    return end(isWhole: endStream)
                }
                request.receive(response)
            }
        }
        if endStream { receiveEnd() }
    }

    func receive(_ bytes: ByteBuffer, padding: Int, endStream: Bool) {
        heldBack += bytes.readableBytes + padding
        guard !isInputEnded else { return }
        if let count = missing {
            guard bytes.readableBytes <= count else { return request?.reject(.badLength) ?? () }
            missing = count - bytes.readableBytes
        }
        if bytes.readableBytes > 0 { request?.receiveResponseBody(bytes) }
        if missing == 0, request?.clientTakesRawChunks ?? false { return end(isWhole: endStream) }
        if endStream { receiveEnd() } else if !isReadPaused { giveBack() }
    }

    /// Nothing more is awaited. A service that does not end its stream is not waited for.
    private func end(isWhole: Bool) {
        receiveEnd()
        guard !isWhole, let id, !isClosed else { return }
        connection.write(id, .rstStream(.cancel))
        connection.flush()
    }

    private func receiveEnd() {
        guard !isInputEnded else { return }
        isInputEnded = true
        request?.receiveResponseEnd(nil)
    }

    func readComplete() { request?.upstreamReadComplete() }

    func closed(_ reason: HTTP2ErrorCode?) {
        close()
        guard let reason, !isInputEnded else { return }
        request?.upstreamLost(self, .broken("the upstream reset the stream: \(reason)"), wasUnprocessed: reason == .refusedStream)
    }

    func lost(_ failure: UpstreamFailure, wasUnprocessed: Bool) {
        close()
        request?.upstreamLost(self, failure, wasUnprocessed: wasUnprocessed)
    }

    private func close() {
        isClosed = true
        _ = connection.grow(by: Self.initialWindow(connection.limits) - window)
        window = Self.initialWindow(connection.limits)
    }

    private func giveBack() {
        guard let id, !isClosed, !isInputEnded, heldBack >= window / 4 else { return }
        taken += heldBack
        var growth = 0
        // What a client's buffer takes is not taken yet: it grows where more has gone than fits there.
        if taken >= 2 * window {
            taken = 0
            growth = connection.grow(by: min(window, connection.limits.streamWindow - window))
            window += growth
        }
        connection.write(id, .windowUpdate(windowSizeIncrement: heldBack + growth))
        connection.flush()
        heldBack = 0
    }
}
