import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import Testing

/// Filters, bounds and bytes of captures, without an interface.
@Suite struct PacketTapTests {
    private let peer = PrivateKey.generate(using: .seeded(1)).publicKey
    private let stranger = PrivateKey.generate(using: .seeded(2)).publicKey

    private func packet(
        _ source: String = "10.1.0.254", _ destination: String = "10.1.0.2", upperProtocol: IPProtocol = .tcp,
        ports: (UInt16, UInt16) = (40_000, 80),
        payload: Int = 20
    ) throws -> [UInt8] {
        let (source, destination) = (try #require(IPAddress(source)), try #require(IPAddress(destination)))
        let header = source.family == .v4 ? 20 : 40
        var bytes = [UInt8](repeating: 0xAA, count: header + payload)
        var elements = bytes.mutableSpan
        var span = elements.mutableBytes
        IPHeader.write(into: &span, source: source, destination: destination, upperProtocol: upperProtocol, payloadLength: payload)
        if payload >= 4 {
            span.storeBigEndian(ports.0, at: header)
            span.storeBigEndian(ports.1, at: header + 2)
        }
        return bytes
    }

    private func record(_ packet: [UInt8], in tap: PacketTap, isInbound: Bool = true) {
        tap.record(packet.span.bytes, isInbound: isInbound, peer: peer, comment: Array("in from x".utf8), time: 0x1_0000_0002)
    }

    private func hex(_ text: String) -> [UInt8] {
        text.split { $0 == " " || $0 == "\n" }.joined().utf8.withContiguousStorageIfAvailable { digits in
            stride(from: 0, to: digits.count, by: 2).compactMap { UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16) }
        } ?? []
    }

    @Test("a capture of one packet is this file, byte for byte")
    func bytes() throws {
        var options = PacketCapture.Options()
        options.filters = [.port(80)]
        options.snapLength = 5
        options.maximumPackets = 1
        let tap = PacketTap(options, application: "test", interface: "wg")
        record(try packet(payload: 8), in: tap)
        #expect(tap.end == .count)
        #expect(
            tap.take()
                == hex(
                    """
                    0A0D0D0A 28000000 4D3C2B1A 01000000 FFFFFFFFFFFFFFFF 0400 0400 74657374 00000000 28000000
                    01000000 30000000 6500 0000 05000000 0200 0200 77670000 0900 0100 09000000 0B00 0300 00383000 00000000 30000000
                    06000000 44000000 00000000 01000000 02000000 05000000 1C000000 4500001C 00000000
                    0100 0900 696E2066 726F6D20 78000000 0200 0400 01000000 00000000 44000000
                    05000000 5C000000 00000000 01000000 02000000 0400 0800 0100000000000000 0500 0800 0000000000000000
                    0600 0800 0100000000000000 0800 0800 0100000000000000 0100 0C00 656E6465643A20636F756E74 00000000 5C000000
                    """))
        #expect(tap.counts.written == 1 && tap.counts.dropped == 0)
    }

    @Test("the predicted length of a packet's block is its length", arguments: [0, 1, 2, 3, 4, 1399, 1400])
    func lengths(payload: Int) throws {
        for comment in ["", "in", "out to \(peer)"].map({ Array($0.utf8) }) {
            let packet = try packet(payload: payload)
            var writer = PcapngWriter()
            writer.packet(packet.span.bytes, at: 1, isInbound: false, comment: comment, snapLength: 1000)
            #expect(writer.bytes.count == PcapngWriter.length(ofPacket: packet.count, comment: comment, snapLength: 1000))
            #expect(writer.bytes.count % 4 == 0)
        }
    }

    @Test("a filter takes what it names, in either direction, and nothing else")
    func filters() throws {
        let other = try packet("10.1.0.2", "10.1.0.254", ports: (80, 40_000))
        let six = try packet("fd00::2", "fd00::fe", upperProtocol: .udp, ports: (53, 9))
        let echo = try packet(upperProtocol: .icmp)
        var fragment = try packet()
        fragment[6] = 0
        fragment[7] = 1
        let whole = try packet()
        let table: [(String, [UInt8], Bool)] = [
            ("80", whole, true), ("80", other, true), ("40000", other, true), ("81", whole, false), ("53", six, true), ("80", echo, false),
            ("80", fragment, false), ("80", try packet(payload: 3), false), ("10.1.0.2", whole, true), ("10.1.0.2", other, true),
            ("10.1.0.254", whole, true), ("10.1.0.3", whole, false), ("10.1.0.0/24", fragment, true), ("fd00::/64", six, true),
            ("fd00::/64", whole, false), ("0.0.0.0/0", six, false), (peer.base64, echo, true), (stranger.base64, echo, false),
            ("10.1.0.2", [], false), ("80", [0x45], false), (peer.base64, [], true),
        ]
        for (text, packet, expected) in table {
            let filter = try #require(CaptureFilter(text))
            let isTaken = filter.matches(packet.span.bytes, peer: peer)
            #expect(isTaken == expected, "\(text)")
            #expect(CaptureFilter(filter.description) == filter)
        }
        let isOwned = CaptureFilter.peer(peer).matches(whole.span.bytes, peer: nil)
        #expect(!isOwned)
    }

    @Test(
        "what is no filter is not taken for one",
        arguments: ["", "0", "65536", "080000", "-1", "10.1.0", "10.1.0.0/33", "tcp", "10.1.0.2:80", "AAAA="])
    func notFilters(text: String) { #expect(CaptureFilter(text) == nil) }

    @Test("of several filters all must match")
    func conjunction() throws {
        var options = PacketCapture.Options()
        options.filters = [.port(80), .block(try #require(IPPrefix("10.1.0.2"))), .peer(peer)]
        let tap = PacketTap(options, application: "test", interface: "wg")
        record(try packet(), in: tap)
        record(try packet(ports: (1, 2)), in: tap)
        record(try packet("10.1.0.3", "10.1.0.254"), in: tap)
        #expect(tap.counts.seen == 3 && tap.counts.matched == 1 && tap.counts.written == 1)
    }

    @Test("a reader that is slow costs packets, which are counted where they are missing, and never more room")
    func slowReader() throws {
        let tap = PacketTap(PacketCapture.Options(), application: "test", interface: "wg", bufferLimit: 10_000)
        let packet = try packet(payload: 1000)
        var most = 0
        for _ in 0..<1000 {
            record(packet, in: tap)
            most = max(most, tap.waitingBytes)
        }
        #expect(most <= 10_000)
        let first = tap.take()
        #expect(tap.counts.written > 5 && tap.counts.written + tap.counts.dropped == 1000)
        // Taken is not yet read.
        record(packet, in: tap)
        #expect(tap.waitingBytes == 0)
        tap.release(first.count)
        record(packet, in: tap)
        let second = tap.take()
        #expect(second.prefix(4) == [5, 0, 0, 0])
        let dropped = second[20..<second.count].withUnsafeBytes { RawSpan(_unsafeBytes: $0).littleEndian64(at: 16) }
        #expect(dropped == tap.counts.dropped)
        record(packet, in: tap)
        #expect(tap.take().prefix(4) == [6, 0, 0, 0])
    }

    @Test("a capture never gets larger than it was told, and ends with its counts")
    func sizeLimit() throws {
        var options = PacketCapture.Options()
        options.maximumBytes = 4096
        let tap = PacketTap(options, application: "test", interface: "wg")
        let packet = try packet(payload: 700)
        for _ in 0..<10 { record(packet, in: tap) }
        #expect(tap.end == .size)
        let bytes = tap.take()
        #expect(bytes.count <= 4096 && bytes.count > 3000)
        #expect(String(decoding: bytes, as: UTF8.self).contains("ended: size"))
    }
}

/// Captures of a running interface.
@Suite(.timeLimit(.minutes(1))) struct PacketCaptureTests {
    /// What a capture has handed over.
    final class Reader: Sendable {
        let bytes = NIOLockedValueBox<[UInt8]>([])
        let end: EventLoopPromise<(PacketCapture.End, PacketCapture.Counts)>

        init(_ loop: any EventLoop) { end = loop.makePromise() }

        func follow(_ capture: PacketCapture) {
            capture.deliver { [self] output in
                switch output {
                case .bytes(let more):
                    bytes.withLockedValue { $0 += more }
                    capture.release(more.count)
                case .end(let reason, let counts): end.succeed((reason, counts))
                }
            }
        }
    }

    private func exchange(_ pair: InterfacePair) async throws {
        let recorder = ChannelTests.Recorder()
        let listener = try await pair.agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler()) }
        }.get()
        let channel = try await pair.gateway.dial(pair.agentEndpoint) { try $0.pipeline.syncOperations.addHandler(recorder) }
        try await channel.writeAndFlush(ByteBuffer(string: "not a secret any more"))
        try await recorder.waits(for: "read 21", on: channel.eventLoop)
        try await channel.close()
        try await listener.close().get()
    }

    @Test("both directions of a connection are captured, with their peer, until it is stopped", arguments: [IPAddress.Family.v4, .v6])
    func bothDirections(family: IPAddress.Family) async throws {
        let pair = try await InterfacePair(family: family)
        let capture = try await pair.gateway.capture(PacketCapture.Options(), application: "test").get()
        let reader = Reader(pair.gateway.eventLoop)
        reader.follow(capture)
        try await exchange(pair)
        capture.stop()
        let (reason, counts) = try await reader.end.futureResult.get()
        #expect(reason == .stopped && counts.dropped == 0 && counts.written >= 5 && counts.seen == counts.written)
        let text = String(decoding: reader.bytes.withLockedValue { $0 }, as: UTF8.self)
        #expect(text.contains("in from \(pair.agent.publicKey)") && text.contains("out to \(pair.agent.publicKey)"))
        #expect(text.split(separator: "not a secret any more").count == 3)
        let held = try await pair.gateway.eventLoop.submit { pair.gateway.hasTaps }.get()
        #expect(!held)
        try await pair.shutdown()
    }

    @Test("without a capture nothing is kept, and after the last packet that was asked for neither")
    func off() async throws {
        let pair = try await InterfacePair()
        #expect(try await pair.gateway.eventLoop.submit { !pair.gateway.hasTaps }.get())
        var options = PacketCapture.Options()
        options.maximumPackets = 2
        let reader = Reader(pair.gateway.eventLoop)
        reader.follow(try await pair.gateway.capture(options, application: "test").get())
        try await exchange(pair)
        let (reason, counts) = try await reader.end.futureResult.get()
        #expect(reason == .count && counts.written == 2)
        #expect(try await pair.gateway.eventLoop.submit { !pair.gateway.hasTaps }.get())
        try await pair.shutdown()
    }

    @Test("only so many captures at a time, and all of them end with the interface")
    func many() async throws {
        let pair = try await InterfacePair()
        var readers: [Reader] = []
        for _ in 0..<PacketCapture.maximumCaptures {
            readers.append(Reader(pair.gateway.eventLoop))
            readers.last?.follow(try await pair.gateway.capture(PacketCapture.Options(), application: "test").get())
        }
        await #expect(throws: PacketCaptureError.tooMany) {
            try await pair.gateway.capture(PacketCapture.Options(), application: "test").get()
        }
        try await pair.gateway.close().get()
        for reader in readers { #expect(try await reader.end.futureResult.get().0 == .interfaceClosed) }
        await #expect(throws: PacketCaptureError.interfaceClosed) {
            try await pair.gateway.capture(PacketCapture.Options(), application: "test").get()
        }
        try await pair.shutdown()
    }

    @Test("a capture ends by itself when its time is over")
    func duration() async throws {
        let pair = try await InterfacePair()
        var options = PacketCapture.Options()
        options.duration = .milliseconds(1)
        let reader = Reader(pair.gateway.eventLoop)
        reader.follow(try await pair.gateway.capture(options, application: "test").get())
        #expect(try await reader.end.futureResult.get().0 == .duration)
        try await pair.shutdown()
    }
}
