import Inet
import Logging
import NIOCore
import NIOEmbedded
import Proxy

/// A client's connection of HTTP/2 with all that stands behind it, played from bytes: what the client sends, what upstreams of HTTP/1.1 and
/// HTTP/2 answer, how much each socket takes, and time. Whatever comes, frames of ours follow the rules, and when the connection is over
/// nothing is left of it.
///
/// The first byte is the setup (``init(_:)``). Then comes one byte a step: bits 0 to 4 say which, bit 5 keeps the loop from running behind
/// it, bits 6 and 7 choose a stream or an upstream, 0 the last one.
final class HTTP2Script {
    /// Plays it, and looks for what has stayed in memory.
    static func run(_ bytes: [UInt8]) {
        weak var service: ProxyService?
        do {
            let script = HTTP2Script(bytes)
            service = script.service
            script.play()
        }
        require(service == nil, "somebody still holds the service")
    }

    private let loop = EmbeddedEventLoop()
    private let service: ProxyService
    private let dialer: ScriptedDialer
    private let client: EmbeddedChannel
    private let wire: ScriptedWire
    private var watch = HTTP2Watch(.server)
    private let setup: UInt8
    private var rest: ArraySlice<UInt8>
    /// Of the client, in order.
    private var streams: [Int] = []
    /// Only requests of ours have gone out.
    private var knowsRequests = true
    /// What an upstream has delivered since the client was sent anything.
    private var unsent: [Int] = []

    /// Bit 0 makes an agent of the proxy, bit 1 lets it find out what the client speaks, bit 2 leaves the client's preface to the script, bit 3
    /// asks for limits that are soon reached, bits 4 and 5 say how the client ends, bit 6 lets one read of a socket bring
    /// all that has arrived, bit 7 leaves the SETTINGS of upstreams to the script.
    private init(_ bytes: [UInt8]) {
        setup = bytes.first ?? 0
        rest = bytes.dropFirst()
        var limits = setup & 1 == 0 ? ProxyLimits() : .agent
        limits.upgradedIdle = .seconds(120)
        limits.clockInterval = .seconds(1)
        limits.requestsInFlightPerClient = 64
        if setup & 8 != 0 {
            (limits.streamsPerConnection, limits.requestsPerConnection, limits.requestsInFlightPerClient) = (4, 6, 3)
            (limits.streamWindow, limits.connectionWindow) = (32 * 1024, 128 * 1024)
        }
        let dialer = ScriptedDialer(loop, sendsSettings: setup & 0x80 == 0)
        self.dialer = dialer
        service = ProxyService(
            mode: setup & 1 == 0 ? .gateway : .agent, router: Router(tunnels: Self.tunnels, logger: Self.silent),
            connector: { target, _ in dialer.dial(target) }, limits: limits, logger: Self.silent)
        (client, wire) = ScriptedWire.channel(on: loop, peer: "198.51.100.9")
        wire.joins = setup & 0x40 != 0
        dialer.joins = wire.joins
    }

    private func play() {
        wire.onSend = { [unowned self] bytes in
            watch.receive(bytes)
            unsent = []
        }
        do {
            try service.configure(client, scheme: .https, speaks: setup & 2 == 0 ? .http2 : .either)
        } catch {
            fatalError("\(error)")
        }
        if setup & 4 == 0 { send(ByteBuffer(bytes: HTTP2Bytes.preface), HTTP2Bytes.frame(4), HTTP2Bytes.frame(4, flags: 1)) }
        pump()
        var steps = 0
        while let code = rest.popFirst(), steps < Self.maximumSteps, client.isActive {
            steps += 1
            step(code & 0x1F, Int(code >> 6))
            if code & 0x20 == 0 { pump() }
        }
        end()
    }

    private func step(_ code: UInt8, _ which: Int) {
        switch code {
        case 0:
            knowsRequests = false
            send(ByteBuffer(bytes: take(Int(next()))))
        case 1:
            let (type, flags, id) = (next(), next(), stream(which))
            if type == 1 { knowsRequests = false }
            send(HTTP2Bytes.frame(type, flags: flags, stream: id, take(Int(next()))))
        case 2...4: request(HTTP2Bytes.requests[Int(next()) % HTTP2Bytes.requests.count], isEnd: code == 2)
        case 5: send(HTTP2Bytes.headers([("x-end", "1")], stream: stream(which), isEnd: next() & 1 == 0))
        case 6:
            streams.append((streams.last ?? -1) + 2)
            send(HTTP2Bytes.frame(1, flags: 4 | next() & 1, stream: streams.last ?? 1, take(Int(next()))))
        case 7, 8: send(HTTP2Bytes.data(Int(next()) * (code == 7 ? 1 : 64), stream: stream(which), isEnd: next() & 1 != 0))
        case 9: send(HTTP2Bytes.data(Int(next()), stream: stream(which), isEnd: false, padding: next()))
        case 10: send(HTTP2Bytes.frame(3, stream: stream(which), HTTP2Bytes.integer(Int(next()))))
        case 11: send(windowUpdate(which == 3 ? 0 : stream(which)))
        case 12: send(HTTP2Bytes.frame(4, settings()))
        case 13: repeated { send(HTTP2Bytes.frame(6, [UInt8](repeating: 1, count: 8))) }
        case 14: repeated { send(HTTP2Bytes.frame(4, flags: UInt8(which & 1))) }
        case 15: send(HTTP2Bytes.frame(7, HTTP2Bytes.integer(Int(next())) + HTTP2Bytes.integer(which)))
        case 16: answer(which)
        case 17: body(which, Int(next()), isEnd: next() & 1 != 0)
        case 18:
            guard let upstream = dialer.upstream(which), let code = rest.popFirst() else { return }
            var fields = HTTP2Bytes.responses[Int(code & 0x7F) % HTTP2Bytes.responses.count]
            let id = upstream.stream(next())
            if let path = upstream.path(of: id) { fields.append(("x-from", path)) }
            upstream.wire.receive(HTTP2Bytes.headers(fields, stream: id, isEnd: code & 0x80 != 0))
        case 19:
            dialer.upstream(which)?.isHonest = false
            dialer.upstream(which)?.wire.receive(ByteBuffer(bytes: take(Int(next()))))
        case 20:
            guard let upstream = dialer.upstream(which) else { return }
            let (type, flags, id) = (next(), next(), upstream.stream(next()))
            upstream.wire.receive(HTTP2Bytes.frame(type, flags: flags, stream: id, take(Int(next()))))
        case 21: dialer.upstream(which)?.wire.receive(HTTP2Bytes.frame(4, settings()))
        case 22:
            guard let upstream = dialer.upstream(which) else { return }
            upstream.wire.receive(windowUpdate(upstream.stream(next())))
        case 23:
            guard let upstream = dialer.upstream(which) else { return }
            upstream.wire.receive(HTTP2Bytes.frame(3, stream: upstream.stream(next()), HTTP2Bytes.integer(Int(next()))))
        case 24: dialer.upstream(which)?.wire.receiveEnd()
        case 25: dialer.upstream(which)?.wire.breakOff(ChannelError.eof)
        case 26: setRoom(dialer.upstream(which)?.wire)
        case 27: setRoom(wire)
        case 28: advance(.milliseconds(Self.times[Int(next()) % Self.times.count]))
        case 29: dialer.plan(next())
        case 30: endClient(which)
        default: manage(next())
        }
    }

    private func manage(_ code: UInt8) {
        switch code % 5 {
        case 0: service.closeIdleConnections()
        case 1: service.endUpgraded { _ in false }
        case 2: client.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        case 3: dialer.completePending()
        // The loop has not come to what they leave behind.
        default: for wire in [wire] + dialer.upstreams.map(\.wire) { _ = wire.deliver() }
        }
    }

    // MARK: The client

    private func send(_ frames: ByteBuffer...) { for frame in frames { wire.receive(frame) } }

    /// One that is open, mostly; or the next one.
    private func stream(_ which: Int) -> Int {
        which < streams.count ? streams[streams.count - 1 - which] : (streams.last ?? -1) + 2
    }

    /// Each has a path of its own, so that an answer can say whose it is.
    private func request(_ request: HTTP2Bytes.Fields, isEnd: Bool) {
        let id = (streams.last ?? -1) + 2
        streams.append(id)
        let fields = request.map { name, value in (name, name == ":path" && value.hasPrefix("/") ? "\(value)?\(id)" : value) }
        if let path = fields.first(where: { $0.0 == ":path" }), knowsRequests { watch.paths[id] = path.1 }
        send(HTTP2Bytes.headers(fields, stream: id, isEnd: isEnd))
    }

    private func windowUpdate(_ stream: Int) -> ByteBuffer {
        HTTP2Bytes.frame(8, stream: stream, HTTP2Bytes.integer(Int(next()) << Int(next() % 24)))
    }

    private func settings() -> [UInt8] {
        (0..<Int(next() % 4)).reduce(into: []) { all, _ in all += HTTP2Bytes.setting(next(), next()) }
    }

    private func repeated(_ body: () -> Void) { for _ in 0...Int(next()) * 4 { body() } }

    private func setRoom(_ wire: ScriptedWire?) {
        let amount = Int(next())
        wire?.room = amount == 255 ? .max : amount * 512
        wire?.push()
    }

    private func endClient(_ which: Int) {
        switch which {
        case 0: wire.receiveEnd()
        case 1: wire.breakOff(ChannelError.eof)
        case 2: client.close(promise: nil)
        default: break
        }
    }

    // MARK: The upstreams

    private func answer(_ which: Int) {
        guard let upstream = dialer.upstream(which) else { return }
        upstream.answer(Int(next()) % HTTP2Bytes.answers.count)
    }

    /// Bytes of a body, in whatever framing; mostly one that fits.
    private func body(_ which: Int, _ count: Int, isEnd: Bool) {
        guard let upstream = dialer.upstream(which) else { return }
        if upstream.isHTTP2 {
            return upstream.wire.receive(HTTP2Bytes.data(count * 64, stream: upstream.stream(next()), isEnd: isEnd))
        }
        upstream.isHonest = false
        let bytes = String(repeating: "b", count: count * 256)
        upstream.wire.receive(ByteBuffer(string: isEnd ? bytes : "\(String(bytes.utf8.count, radix: 16))\r\n\(bytes)\r\n"))
    }

    // MARK: Time

    private func advance(_ amount: TimeAmount) {
        loop.advanceTime(by: amount)
        pump()
    }

    /// Until nothing moves.
    private func pump() {
        loop.run()
        var rounds = 0
        var hasMoved = true
        while hasMoved {
            rounds += 1
            require(rounds < 100_000, "it moves for ever")
            hasMoved = wire.deliver()
            loop.run()
            for (index, upstream) in dialer.upstreams.enumerated() {
                let before = upstream.wire.delivered
                guard upstream.wire.deliver() else { continue }
                hasMoved = true
                if unsent.count <= index { unsent += [Int](repeating: 0, count: index + 1 - unsent.count) }
                unsent[index] += upstream.wire.delivered - before
                loop.run()
                let bound = upstream.isHTTP2 ? Self.windowsBound : Self.unsentBound
                require(unsent.count <= index || unsent[index] < bound, "it reads on while the client gets nothing")
            }
        }
    }

    // MARK: The end

    private func end() {
        wire.room = .max
        wire.push()
        for upstream in dialer.upstreams {
            upstream.wire.room = .max
            upstream.wire.push()
            upstream.judge()
        }
        pump()
        endClient(Int(setup >> 4 & 3))
        pump()
        for _ in 0..<40 where client.isActive { advance(.seconds(31)) }
        require(!client.isActive, "the connection does not end")
        let late = wire.lateWrites
        dialer.failPending()
        advance(.seconds(200))
        service.closeIdleConnections()
        advance(.seconds(200))
        require(wire.lateWrites == late, "something is written long after the end")
        let totals = service.counters(of: loop).totals
        require(totals.streamsOpened == totals.streamsClosed, "\(totals.streamsOpened) streams, \(totals.streamsClosed) over")
        require(
            totals.connectionsOpened == totals.connectionsClosed,
            "connections \(totals.connectionsOpened), over \(totals.connectionsClosed)")
        require(
            totals.upstreamOpened == totals.upstreamClosed && dialer.upstreams.allSatisfy { !$0.channel.isActive },
            "\(totals.upstreamOpened) upstreams, \(totals.upstreamClosed) over")
        require(service.requestsInHand == 0, "\(service.requestsInHand) requests in hand")
        dialer.forget()
    }

    // MARK: Bytes

    private func next() -> UInt8 { rest.popFirst() ?? 0 }

    private func take(_ count: Int) -> [UInt8] {
        let bytes = Array(rest.prefix(count))
        rest = rest.dropFirst(count)
        return bytes
    }

    private static let maximumSteps = 1000
    private static let times: [Int64] = [0, 1, 500, 1000, 2500, 4000, 10_500, 20_000, 31_000, 61_000, 76_000, 125_000]
    /// As many heads of 1xx as are taken, and what fills a buffer.
    private static let unsentBound = 2 << 20
    /// What the windows of all streams let through.
    private static let windowsBound = 24 << 20
    private static let silent = Logger(label: "fuzz", factory: { _ in SwiftLogNoOpLogHandler() })

    private static let tunnels: [TunnelConfig] = {
        var h2c = RouteOptions()
        h2c.upstreamProtocol = .h2c
        return [
            TunnelConfig(id: "1", domain: "app.example.com", agentVirtualIP: IPAddress(v4: 10, 1, 0, 2)),
            TunnelConfig(id: "2", domain: "h2.example.com", agentVirtualIP: IPAddress(v4: 10, 1, 0, 3), options: h2c),
            TunnelConfig(id: "3", domain: "off.example.com", agentVirtualIP: IPAddress(v4: 10, 1, 0, 4), enabled: false),
        ]
    }()
}
