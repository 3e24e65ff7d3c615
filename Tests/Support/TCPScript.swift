import Inet
import TCPStack

/// A packet script: one `Stack` under test, a peer that is played by hand, and virtual time.
///
/// `send` puts a segment of the peer on the wire, `expect` takes the stack's next one and compares it, `advance` lets time pass
/// timer by timer. Sequence numbers of the peer begin at `peerISS`; those of the stack are given relative to `base`, so that
/// its first SYN is 5000 whatever its real ISS is.
package final class TCPScript {
    package var stack: Stack
    package var now = Instant(nanoseconds: 1_000_000_000_000)
    package let local: IPAddress
    package let remote: IPAddress
    package var localPort: UInt16 = 80
    package var remotePort: UInt16 = 40_000
    /// TSval of the peer's segments; `nil` sends none.
    package var peerTimestamp: UInt32?
    /// The stack's real ISS, from its first SYN.
    private var realISS: UInt32?
    /// Segments that have left and not been looked at, with the moment they left.
    private var outbox: [Segment] = []
    private var outboxHead = 0
    /// For choices of a test that have to repeat with its seed.
    package var generator: Generator

    package struct Generator: RandomNumberGenerator {
        let source: RandomSource
        package func next() -> UInt64 { source.nextUInt64() }
    }

    /// A TCP segment in readable form.
    package struct Segment: Equatable, CustomStringConvertible {
        package var flags: TCPFlags
        /// Relative for the stack's own numbers, as they are for the peer's.
        package var seq: UInt32
        package var ack: UInt32
        package var window: UInt16
        package var text: [UInt8]
        package var mss: UInt16?
        package var windowScale: UInt8?
        package var sackPermitted = false
        package var tsVal: UInt32?
        package var tsEcr: UInt32?
        package var sack: [Range<UInt32>] = []
        /// The SACK blocks as they stand on the wire, those that wrap included.
        package var blocks: [SequenceRange] = []
        package var sourcePort: UInt16
        package var destinationPort: UInt16
        package var packetLength = 0
        package var ecn = ECN.notECT
        package var urgentPointer: UInt16 = 0
        package var at = Instant(nanoseconds: 0)

        package var description: String {
            var names = ""
            for (flag, name) in [
                (TCPFlags.syn, "S"), (.fin, "F"), (.rst, "R"), (.psh, "P"), (.urg, "U"), (.ece, "E"), (.cwr, "C"), (.ack, "A"),
            ]
            where flags.contains(flag) {
                names += name
            }
            return "\(names) \(seq):\(seq &+ UInt32(text.count)) ack \(ack) win \(window)" + (sack.isEmpty ? "" : " sack \(sack)")
        }
    }

    /// - Parameter ecn: whether the stack offers ECN; most scripts do not speak of it.
    package init(
        configuration: StackConfiguration = StackConfiguration(), family: IPAddress.Family = .v4, ecn: Bool = false, seed: UInt64 = 1
    ) {
        var configuration = configuration
        configuration.ecn = ecn
        stack = Stack(configuration: configuration, random: .seeded(seed))
        generator = Generator(source: .seeded(seed &+ 1))
        switch family {
        case .v4: (local, remote) = (IPAddress(v4: 10, 1, 0, 1), IPAddress(v4: 10, 1, 0, 2))
        case .v6:
            (local, remote) = (IPAddress(v6High: 0xFD00 << 48, low: 1), IPAddress(v6High: 0xFD00 << 48, low: 2))
        }
        stack.setAddresses([local], now: now)
    }

    /// The peer sends a segment. `ack` is relative to `ourISS` 5000.
    package func send(
        _ flags: TCPFlags, seq: UInt32, ack: UInt32? = nil, window: UInt16 = 65_535, text: [UInt8] = [], options: TCPOptions = TCPOptions(),
        ecn: ECN = .notECT, urgentPointer: UInt16 = 0, echo: UInt32 = 0
    ) {
        var options = options
        if let peerTimestamp, options.timestamps == nil {
            options.timestamps = .init(value: peerTimestamp, echoReply: echo)
        }
        // SACK blocks are in relative numbers too.
        let offset = Int((realISS ?? 5000) &- 5000)
        var sack = SACKBlocks()
        for index in 0..<options.sack.count {
            sack.append(SequenceRange(options.sack[index].start + offset, options.sack[index].end + offset))
        }
        options.sack = sack
        var flags = flags
        if ack != nil { flags.insert(.ack) }
        let packet = Self.packet(
            from: SocketEndpoint(remote, port: remotePort), to: SocketEndpoint(local, port: localPort), flags: flags, seq: seq,
            ack: ack.map { $0 &- 5000 &+ (realISS ?? 5000) } ?? 0, window: window, text: text, options: options, ecn: ecn,
            urgentPointer: urgentPointer)
        inject(packet)
    }

    /// The next SYN of the stack sets its relative numbers anew.
    package func forgetISS() { realISS = nil }

    /// Puts any packet on the wire towards the stack.
    package func inject(_ packet: [UInt8]) { stack.receive(packet.span.bytes, now: now) }

    /// Takes all that the stack has to say now.
    package func pump() {
        while let bytes = nextPacket() {
            guard var segment = Self.parse(bytes) else { continue }
            if segment.flags.contains(.syn), realISS == nil { realISS = segment.seq }
            if let realISS { segment.seq = segment.seq &- realISS &+ 5000 }
            segment.at = now
            outbox.append(segment)
        }
    }

    /// The stack's next whole packet.
    package func nextPacket() -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 2000)
        var range: Range<Int>?
        do {
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            range = stack.pollTransmit(into: &bytes, at: 64, now: now)
        }
        return range.map { Array(buffer[$0]) }
    }

    /// The stack's next segment; `nil` if it is silent.
    package func next() -> Segment? {
        pump()
        guard outboxHead < outbox.count else { return nil }
        outboxHead += 1
        return outbox[outboxHead - 1]
    }

    /// All segments that are waiting.
    package func all() -> [Segment] {
        var result: [Segment] = []
        while let segment = next() { result.append(segment) }
        return result
    }

    /// Lets `duration` pass, firing each timer at its moment. Segments keep the moment at which they left.
    package func advance(by duration: Duration) {
        let end = now + duration
        pump()
        while let deadline = stack.nextDeadline, deadline <= end {
            now = max(now, deadline)
            stack.handleTimeout(now: now)
            pump()
        }
        now = end
    }

    /// All events that are waiting.
    package func events() -> [StackEvent] {
        var result: [StackEvent] = []
        while let event = stack.pollEvent() { result.append(event) }
        return result
    }

    /// cwnd, in bytes; 0 for a dead ID.
    package func congestionWindow(_ id: ConnectionID) -> Int { stack.congestionWindow(of: id) ?? 0 }

    /// Whether the connection lives.
    package func isAlive(_ id: ConnectionID) -> Bool { stack.endpoints(of: id) != nil }

    /// Reads everything that is readable.
    package func read(_ id: ConnectionID, atMost limit: Int = 1 << 22) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: min(limit, stack.readableBytes(id)))
        var count = 0
        do {
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            count = (try? stack.read(id, into: &bytes, now: now)) ?? 0
        }
        return Array(buffer[..<count])
    }

    /// Writes `bytes`; gives the number taken, or `nil` if the write was refused.
    @discardableResult
    package func write(_ id: ConnectionID, _ bytes: [UInt8]) -> Int? { try? stack.write(id, bytes.span.bytes, now: now) }

    /// The peer's next passive handshake: SYN, SYN and ACK, ACK. Leaves the stack in ESTABLISHED with the peer's next number
    /// 1001 and its own 5001.
    /// - Parameters:
    ///   - flags: of the SYN, for ECN.
    ///   - roundTrip: how long the peer's ACK takes.
    package func establish(
        options: TCPOptions = TCPScript.plainMSS(1000), flags: TCPFlags = .syn, window: UInt16 = 65_535, roundTrip: Duration = .zero
    ) -> ConnectionID? {
        if stack.counts.listeners == 0 { _ = try? stack.listen(address: nil, port: localPort, backlog: 16) }
        send(flags, seq: 1000, window: window, options: options)
        guard let answer = next(), answer.flags.isSuperset(of: [.syn, .ack]) else { return nil }
        now += roundTrip
        send(.ack, seq: 1001, ack: 5001, window: window)
        for event in events() {
            if case .accepted(_, let id) = event { return id }
        }
        return nil
    }

    package static func plainMSS(_ mss: UInt16) -> TCPOptions {
        var options = TCPOptions()
        options.maximumSegmentSize = mss
        return options
    }

    /// Blocks of reported sequence numbers.
    package static func reporting(_ blocks: Range<UInt32>...) -> TCPOptions {
        var options = TCPOptions()
        for block in blocks { options.sack.append(SequenceRange(SequenceNumber(block.lowerBound), SequenceNumber(block.upperBound))) }
        return options
    }

    /// MSS, SACK permitted and a window scale, as a modern peer sends them.
    package static func sack(_ mss: UInt16 = 1000, scale: UInt8? = nil) -> TCPOptions {
        var options = plainMSS(mss)
        options.isSACKPermitted = true
        options.windowScale = scale
        return options
    }

    /// An IP packet with one TCP segment.
    package static func packet(
        from source: SocketEndpoint, to destination: SocketEndpoint, flags: TCPFlags, seq: UInt32, ack: UInt32 = 0, window: UInt16 = 65_535,
        text: [UInt8] = [], options: TCPOptions = TCPOptions(), ecn: ECN = .notECT, urgentPointer: UInt16 = 0
    ) -> [UInt8] {
        let header = TCPHeader(
            sourcePort: source.port, destinationPort: destination.port, sequence: SequenceNumber(seq), acknowledgment: SequenceNumber(ack),
            flags: flags, window: window, urgentPointer: urgentPointer)
        let start = SegmentWriter.ipHeaderLength(source.address.family) + TCPHeader.minimumLength + options.encodedLength
        var buffer = [UInt8](repeating: 0, count: start + text.count)
        buffer.replaceSubrange(start..., with: text)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        _ = SegmentWriter.finish(
            into: &bytes, at: 0, local: source.address, remote: destination.address, header: header, options: options,
            payloadLength: text.count, ecn: ecn)
        return buffer
    }

    /// The segment in an IP packet; `nil` for another protocol or a bad checksum.
    package static func parse(_ packet: [UInt8]) -> Segment? {
        let bytes = packet.span.bytes
        guard let ip = try? IPHeader(parsing: bytes), ip.upperProtocol == .tcp else { return nil }
        let segment = bytes.extracting(ip.payload)
        var checksum = InternetChecksum()
        checksum.addPseudoHeader(source: ip.source, destination: ip.destination, length: segment.byteCount, protocolNumber: 6)
        checksum.add(segment)
        guard checksum.value == 0, let header = TCPHeader(parsing: segment) else { return nil }
        let options = TCPOptions(parsing: segment.extracting(TCPHeader.minimumLength..<header.headerLength))
        var result = Segment(
            flags: header.flags, seq: header.sequence.rawValue, ack: header.acknowledgment.rawValue, window: header.window,
            text: Array(packet[(ip.headerLength + header.headerLength)..<ip.totalLength]), sourcePort: header.sourcePort,
            destinationPort: header.destinationPort)
        result.mss = options.maximumSegmentSize
        result.windowScale = options.windowScale
        result.sackPermitted = options.isSACKPermitted
        result.tsVal = options.timestamps?.value
        result.tsEcr = options.timestamps?.echoReply
        for index in 0..<options.sack.count {
            let block = options.sack[index]
            result.blocks.append(block)
            if block.start.rawValue <= block.end.rawValue { result.sack.append(block.start.rawValue..<block.end.rawValue) }
        }
        result.packetLength = ip.totalLength
        result.ecn = ECN(trafficClass: ip.trafficClass)
        result.urgentPointer = header.urgentPointer
        return result
    }
}
