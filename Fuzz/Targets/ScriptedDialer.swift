import Crypto
import FoundationEssentials
import NIOCore
import NIOEmbedded
import Proxy

/// Connects to upstreams that a script plays, as the script has planned. Used on one thread.
final class ScriptedDialer: @unchecked Sendable {
    /// Of both protocols.
    final class Upstream {
        let channel: EmbeddedChannel
        let wire: ScriptedWire
        let isHTTP2: Bool
        /// Answers as many requests as it got, each with one whole message: then every answer is known to belong to one of them.
        var isHonest = true
        private var watch = HTTP2Watch(.client)
        private var answered = 0
        /// What an upstream of HTTP/1.1 got, up to a bound.
        private var text: [UInt8] = []

        init(_ channel: EmbeddedChannel, _ wire: ScriptedWire, isHTTP2: Bool) {
            self.channel = channel
            self.wire = wire
            self.isHTTP2 = isHTTP2
            wire.onSend = { [unowned self] bytes in receive(bytes) }
        }

        private func receive(_ bytes: ByteBuffer) {
            if isHTTP2 {
                watch.receive(bytes)
            } else {
                text += bytes.readableBytesView.prefix(Self.textBound - text.count)
            }
        }

        /// One that was opened, 0 the last; or the connection's own.
        func stream(_ which: UInt8) -> Int {
            let opened = watch.opened
            return Int(which) < opened.count ? opened[opened.count - 1 - Int(which)] : which == 255 ? (opened.last ?? -1) + 2 : 0
        }

        func path(of stream: Int) -> String? { watch.paths[stream] }

        /// One of ``HTTP2Bytes/answers``.
        func answer(_ index: Int) {
            var text = HTTP2Bytes.answers[index].split(separator: "%").joined(separator: webSocketAccept)
            let isInterim = index == 5 || index == 6
            let requests = isHonest ? HTTP1Reader(.requests, limits: HTTP2FieldsScript.wide).read(self.text).messages : []
            isHonest = isHonest && (isInterim || HTTP2Bytes.wholeAnswers.contains(index)) && answered < requests.count
            // To HEAD, the body would be the beginning of the next answer.
            if isHonest, index == 0, requests[answered].start[0] == "HEAD" { isHonest = false }
            if isHonest {
                text.replace("\r\n", with: "\r\nX-From: \(requests[answered].start[1])\r\n", maxReplacements: 1)
                if !isInterim { answered += 1 }
            }
            wire.receive(ByteBuffer(string: text))
        }

        /// What it got is requests of HTTP/1.1 one after the other, whose last may lack something.
        func judge() {
            guard !isHTTP2, text.count < Self.textBound, !String(decoding: text, as: UTF8.self).contains("\r\nUpgrade: ") else { return }
            let reading = HTTP1Reader(.requests, limits: HTTP2FieldsScript.wide).read(text)
            require(reading.end != .refused, "it got \(String(decoding: text.suffix(2000), as: UTF8.self).debugDescription)")
        }

        /// RFC 6455 §4.2.2.
        private var webSocketAccept: String {
            let lines = String(decoding: text, as: UTF8.self).split(separator: "\r\n")
            guard let key = lines.last(where: { $0.lowercased().hasPrefix("sec-websocket-key: ") })?.dropFirst(19) else { return "" }
            let hash = Insecure.SHA1.hash(data: Data((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8))
            return Data(hash).base64EncodedString()
        }

        private static let textBound = 256 * 1024
    }

    private let loop: EmbeddedEventLoop
    private let sendsSettings: Bool
    /// As ``ScriptedWire/joins``.
    var joins = false
    private(set) var upstreams: [Upstream] = []
    private var pending: [(UpstreamTarget, EventLoopPromise<any Channel>)] = []
    private var plan: [UInt8] = []

    init(_ loop: EmbeddedEventLoop, sendsSettings: Bool) {
        self.loop = loop
        self.sendsSettings = sendsSettings
    }

    /// Two bits for each of the next connects: 0 succeeds, 1 waits, 2 is refused, 3 brings a connection that is closed.
    func plan(_ code: UInt8) { plan = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6] }

    /// 0 is the last one.
    func upstream(_ which: Int) -> Upstream? { which < upstreams.count ? upstreams[upstreams.count - 1 - which] : nil }

    func dial(_ target: UpstreamTarget) -> EventLoopFuture<any Channel> {
        guard upstreams.count < Self.maximum else { return loop.makeFailedFuture(UpstreamFailure.refused) }
        switch plan.isEmpty ? 0 : plan.removeFirst() {
        case 0: return loop.makeSucceededFuture(connected(target))
        case 1:
            let promise = loop.makePromise(of: (any Channel).self)
            pending.append((target, promise))
            return promise.futureResult
        case 2: return loop.makeFailedFuture(UpstreamFailure.refused)
        default:
            let channel = connected(target)
            channel.close(promise: nil)
            return loop.makeSucceededFuture(channel)
        }
    }

    func completePending() {
        guard !pending.isEmpty else { return }
        let (target, promise) = pending.removeFirst()
        promise.succeed(connected(target))
    }

    func failPending() {
        let all = pending
        pending = []
        for (_, promise) in all { promise.fail(UpstreamFailure.unreachable("nobody answers")) }
    }

    func forget() { upstreams = [] }

    private func connected(_ target: UpstreamTarget) -> any Channel {
        let (channel, wire) = ScriptedWire.channel(on: loop, peer: "10.1.0.2")
        wire.joins = joins
        let isHTTP2 = target.upstreamProtocol == .h2c
        upstreams.append(Upstream(channel, wire, isHTTP2: isHTTP2))
        if isHTTP2, sendsSettings {
            wire.receive(HTTP2Bytes.frame(4))
            wire.receive(HTTP2Bytes.frame(4, flags: 1))
        }
        return channel
    }

    private static let maximum = 64
}
