import Inet
import NIOCore
import NIOEmbedded
import NIOExtras
import NIOWireGuard
import Proxy
import Testing

/// A relay between two channels without a network, in virtual time.
@Suite struct RelayHalfTests {
    @Test("on the way down a relay whose target has spoken last ends after a second of silence, by a FIN to the target")
    func drain() throws {
        let pair = try RelayPair()
        try pair.exchange("request", "answer")
        pair.quiesce()
        pair.loop.advanceTime(by: .milliseconds(900))
        #expect(pair.origin.ends == [] && pair.tunnel.ends == [])
        pair.loop.advanceTime(by: .milliseconds(400))
        #expect(pair.origin.ends == [.output] && pair.tunnel.ends == [])
        // The server closes, and the gateway's connection ends with a reset: nothing that was cut may look complete.
        pair.origin.endInput()
        #expect(pair.tunnel.ends == [.resetBehind])
    }

    @Test("a request that is with the target puts it off until the answer, and so does an answer that goes on")
    func drainOfTheBusy() throws {
        let pair = try RelayPair()
        try pair.tunnel.receive("request")
        pair.quiesce()
        pair.loop.advanceTime(by: .seconds(10))
        for _ in 0..<10 {
            #expect(pair.origin.ends == [])
            try pair.origin.receive("piece")
            pair.loop.advanceTime(by: .milliseconds(800))
        }
        #expect(pair.tunnel.takeWritten() == String(repeating: "piece", count: 10))
        pair.loop.advanceTime(by: .seconds(1))
        #expect(pair.origin.ends == [.output])
    }

    @Test("what does not fit on its way puts it off, too")
    func drainOfTheFull() throws {
        let pair = try RelayPair()
        try pair.exchange("request", "answer")
        pair.tunnel.channel.isWritable = false
        pair.quiesce()
        pair.loop.advanceTime(by: .seconds(10))
        #expect(pair.origin.ends == [])
        pair.tunnel.channel.isWritable = true
        pair.loop.advanceTime(by: .seconds(2))
        #expect(pair.origin.ends == [.output])
    }

    @Test("a server that was in the midst of its answer comes to its end")
    func retiredInAnAnswer() throws {
        let pair = try RelayPair()
        try pair.exchange("request", "half")
        pair.quiesce()
        pair.loop.advanceTime(by: .seconds(2))
        #expect(pair.origin.ends == [.output])
        try pair.origin.receive("rest")
        #expect(pair.tunnel.takeWritten() == "rest")
        pair.origin.endInput()
        #expect(pair.tunnel.ends == [.resetBehind])
    }

    @Test("a request that comes too late for its target is a reset, so that it is asked again elsewhere")
    func lateRequest() throws {
        let pair = try RelayPair()
        try pair.exchange("request", "answer")
        pair.quiesce()
        pair.loop.advanceTime(by: .seconds(2))
        try pair.tunnel.receive("another")
        #expect(pair.tunnel.ends == [.resetBehind])
        #expect(pair.origin.ends == [.output, .reset])
        #expect(pair.origin.takeWritten() == "")
    }

    @Test("on the way down a connection that nothing was asked on ends at once")
    func drainOfTheSilent() throws {
        let pair = try RelayPair(isJoined: false)
        pair.quiesce()
        #expect(pair.tunnel.ends == [.all])
    }

    @Test("the relays of a former target end after a tenth of a second of silence; the busy ones are reset at the deadline")
    func retirement() throws {
        let (idle, busy) = (try RelayPair(), try RelayPair())
        try idle.exchange("request", "answer")
        try busy.tunnel.receive("request")
        for pair in [idle, busy] {
            pair.tell(RelayRetires(pair.relay, within: .seconds(25)))
            pair.loop.advanceTime(by: .milliseconds(200))
        }
        #expect(idle.origin.ends == [.output] && busy.origin.ends == [])
        busy.loop.advanceTime(by: .seconds(24))
        #expect(busy.tunnel.ends == [] && busy.origin.ends == [])
        busy.loop.advanceTime(by: .seconds(1))
        #expect(busy.tunnel.ends == [.resetBehind] && busy.origin.ends == [.reset])
        // A server that takes no notice of its FIN.
        idle.loop.advanceTime(by: .seconds(25))
        #expect(idle.tunnel.ends == [.resetBehind])
    }

    @Test("the relays of another target are not meant")
    func otherRetirement() throws {
        let (pair, other) = (try RelayPair(), try RelayPair())
        try pair.exchange("request", "answer")
        pair.tell(RelayRetires(other.relay, within: .seconds(1)))
        pair.loop.advanceTime(by: .seconds(100))
        #expect(pair.tunnel.ends == [] && pair.origin.ends == [])
    }

    @Test("a target that takes nothing more, though the gateway has said all and gone, is given up")
    func stalledTarget() throws {
        let pair = try RelayPair()
        try pair.exchange("request", "answer")
        pair.origin.endInput()
        pair.tunnel.endInput()
        pair.origin.buffered = 1000
        pair.tunnel.channel.pipeline.fireChannelInactive()
        pair.loop.advanceTime(by: .seconds(59))
        pair.origin.buffered = 500
        pair.loop.advanceTime(by: .seconds(60))
        #expect(!pair.origin.ends.contains(.reset))
        pair.loop.advanceTime(by: .seconds(60))
        #expect(pair.origin.ends.last == .reset)
    }

    @Test("what comes while the target is dialled reaches it in order; a target that fails is a reset")
    func dialling() throws {
        let pair = try RelayPair(isJoined: false)
        try pair.tunnel.receive("GET ")
        try pair.tunnel.receive("/")
        pair.answerDial(.success(()))
        #expect(pair.origin.takeWritten() == "GET /")
        let other = try RelayPair(isJoined: false)
        try other.tunnel.receive("GET ")
        other.answerDial(.failure(ChannelError.connectTimeout(.seconds(3))))
        #expect(other.tunnel.ends == [.reset])
        #expect(other.relay.counts == .init(unreachable: 1))
    }

    @Test("HTTP/2 is for somebody who speaks it, also if its preface comes in pieces; without one it is a reset")
    func preface() throws {
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        let pair = try RelayPair(isJoined: false)
        for letter in preface { try pair.tunnel.receive(String(letter)) }
        #expect(pair.tunnel.ends == [.reset])
        let almost = try RelayPair(isJoined: false)
        try almost.tunnel.receive("PRI")
        try almost.tunnel.receive("NT / HTTP/1.1\r\n\r\n")
        almost.answerDial(.success(()))
        #expect(almost.origin.takeWritten() == "PRINT / HTTP/1.1\r\n\r\n")
    }
}

/// A relay's two channels.
private struct RelayPair {
    let loop = EmbeddedEventLoop()
    let tunnel: RelayEnd
    let origin: RelayEnd
    let relay: TunnelRelay
    private let dialled: EventLoopPromise<Void>

    init(isJoined: Bool = true) throws {
        (tunnel, origin) = (try RelayEnd(loop), try RelayEnd(loop))
        let dialled = loop.makePromise(of: Void.self)
        self.dialled = dialled
        let box = NIOLoopBound(origin, eventLoop: loop)
        relay = TunnelRelay(
            to: UpstreamTarget(address: IPAddress(v4: 127, 0, 0, 1), port: 80),
            connector: { _, _ in dialled.futureResult.map { box.value.channel as any Channel } }, patience: .seconds(60), logger: .silent)
        try relay.initialize(tunnel.channel).wait()
        if isJoined { dialled.succeed() }
    }

    func answerDial(_ result: Result<Void, any Error>) { dialled.completeWith(result) }

    func exchange(_ request: String, _ answer: String) throws {
        try tunnel.receive(request)
        #expect(origin.takeWritten() == request)
        try origin.receive(answer)
        #expect(tunnel.takeWritten() == answer)
    }

    func quiesce() { tell(ChannelShouldQuiesceEvent()) }
    func tell(_ event: any Sendable) { tunnel.channel.pipeline.fireUserInboundEventTriggered(event) }
}

/// A channel that keeps how it was told to end, and does not.
private final class RelayEnd: ChannelOutboundHandler {
    typealias OutboundIn = Any

    enum End { case output, all, reset, resetBehind }

    let channel: EmbeddedChannel
    private(set) var ends: [End] = []
    /// Bytes that the system has not taken.
    var buffered = 0 {
        didSet {
            channel.flush()
            _ = takeWritten()
            channel.write(ByteBuffer(repeating: 0, count: buffered), promise: nil)
        }
    }

    init(_ loop: EmbeddedEventLoop) throws {
        channel = EmbeddedChannel(loop: loop)
        try channel.pipeline.syncOperations.addHandler(self)
        channel.connect(to: try SocketAddress(ipAddress: "10.1.0.254", port: 1), promise: nil)
    }

    func receive(_ text: String) throws { try channel.writeInbound(ByteBuffer(string: text)) }
    func endInput() { channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed) }

    func takeWritten() -> String {
        var text = ""
        while let bytes = try? channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
        return text
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        ends.append(mode == .output ? .output : .all)
        promise?.succeed()
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        guard let abort = event as? WireGuardChannel.AbortEvent else { return }
        ends.append(abort.patience == nil ? .reset : .resetBehind)
        promise?.succeed()
    }
}
