import Inet
import TCPStack
import TestSupport

/// A script that is read from bytes and played to a stack with a live connection: segments near to what fits, replays, ICMP errors,
/// fragments, time, and whatever the application may do. Right after each step every invariant of the stack has to hold, what it
/// sends has to be right, and every byte has to be the one that belongs at its place.
struct StackScript: ~Copyable {
    private var rest: ArraySlice<UInt8>
    private var now = Instant(nanoseconds: 1_000_000_000_000)
    private var stack: Stack
    private let local: IPAddress
    private let remote: IPAddress
    private let mtu: Int
    private var remotePort: UInt16 = 40_000
    private var localPort: UInt16 = 80
    private var connection = Peer()
    private var id: ConnectionID?
    private var isOurs = false
    private let coalesces: Bool
    private let socket: UDPSocketID?
    /// What the peer has sent last, to be sent again.
    private var history: [[UInt8]] = []
    private var lastPacket: [UInt8] = []
    /// The first sequence number of what `id` reads; another connection may follow on its ports before all is read.
    private var readFrom: UInt32 = 0
    private var bytesRead = 0
    private var bytesWritten = 0

    /// The peer of the connection in play, as its own TCP would know things.
    private struct Peer {
        var iss: UInt32 = 1000
        var next: UInt32 = 1001
        /// The stack's ISS and the end of what it has sent.
        var irs: UInt32?
        var highest: UInt32 = 0
        var echo: UInt32?
    }

    init(_ bytes: [UInt8]) {
        rest = bytes[...]
        let setup = rest.popFirst() ?? 0
        let more = rest.popFirst() ?? 0
        var configuration = StackConfiguration()
        configuration.maximumConnections = 20
        configuration.maximumTimeWait = 4
        configuration.maximumHalfOpenPerListener = 4
        configuration.maximumReplyBytes = 4096
        if setup & 1 != 0 {
            configuration.receiveBufferInitial = 4096
            configuration.receiveBufferMaximum = 16_384
            configuration.sendBufferMaximum = 8192
        }
        if more & 1 != 0 { configuration.memoryLimit = 100_000 }
        configuration.ecn = more & 2 == 0
        coalesces = more & 4 != 0
        if setup & 2 != 0 { configuration.keepalive = .seconds(10) }
        if setup & 4 != 0 { configuration.congestion = .newReno }
        mtu = configuration.mtu
        isOurs = setup & 8 != 0
        let isV4 = setup & 16 == 0
        local = isV4 ? IPAddress(v4: 10, 1, 0, 1) : IPAddress(v6High: 0xFD00 << 48, low: 1)
        remote = isV4 ? IPAddress(v4: 10, 1, 0, 2) : IPAddress(v6High: 0xFD00 << 48, low: 2)
        stack = Stack(configuration: configuration, random: .seeded(3))
        stack.setAddresses([local], now: now)
        let options = ConnectionOptions(coalescesSmallWrites: coalesces)
        _ = try? stack.listen(address: nil, port: 80, backlog: 4, options: options)
        socket = try? stack.openUDP(address: nil, port: 53)
        open(setup >> 5)
    }

    mutating func run() {
        var steps = 0
        while !rest.isEmpty, steps < 500 {
            steps += 1
            step(byte())
            settle()
        }
        finish()
    }

    private mutating func step(_ code: UInt8) {
        switch code % 16 {
        case 0, 1: sendOddSegment()
        case 2, 3: sendData(byte(), ahead: 0)
        case 4: sendData(byte(), ahead: UInt32(byte()) * 100)
        case 5: send(.ack, seq: connection.next, ack: connection.highest, window: UInt16(byte()) << 8 | 0xFF)
        case 6:
            // Some of what is in flight has come, with holes in front.
            var options = TCPOptions()
            for _ in 0..<(1 + byte() % 3) {
                let start = acknowledged() &+ UInt32(byte()) * 200
                options.sack.append(SequenceRange(SequenceNumber(start), SequenceNumber(start &+ UInt32(byte()) * 100)))
            }
            send(.ack, seq: connection.next, ack: acknowledged(), window: 0xFFFF, options: options)
        case 7: pass(.milliseconds(Int64(byte()) * Int64(byte())))
        case 8: write(Int(byte()) * 100)
        case 9: read(Int(byte()) * 100)
        case 10: command(byte())
        case 11: sendError()
        case 12: if code & 16 == 0 { receive(take(Int(byte()))) } else { sendDatagram() }
        case 13: sendFragment()
        case 14:
            if !history.isEmpty { receive(history[Int(byte()) % history.count]) }
        default: open(byte())
        }
    }

    // MARK: What the peer sends

    private mutating func open(_ choice: UInt8) {
        connection = Peer()
        (bytesRead, bytesWritten) = (0, 0)
        readFrom = connection.iss &+ 1
        id = nil
        history = []
        var options = TCPOptions()
        options.maximumSegmentSize = choice & 1 != 0 ? 100 : 1380
        options.isSACKPermitted = choice & 2 != 0
        options.windowScale = choice & 2 != 0 ? 7 : nil
        if choice & 4 != 0 { options.timestamps = .init(value: clock, echoReply: 0) }
        if isOurs {
            // The stack connects.
            remotePort = 7
            id = try? stack.connect(
                from: local, to: SocketEndpoint(remote, port: remotePort), options: ConnectionOptions(coalescesSmallWrites: coalesces),
                now: now)
            guard let id, let port = stack.endpoints(of: id)?.local.port else { return }
            localPort = port
            settle()
            guard connection.irs != nil else { return }
            if let echo = connection.echo, options.timestamps != nil { options.timestamps?.echoReply = echo }
            send(
                choice & 8 != 0 ? [.syn, .ack, .ece] : [.syn, .ack], seq: connection.iss, ack: connection.highest, window: 0xFFFF,
                options: options, isPlain: true)
        } else {
            remotePort &+= remotePort >= 40_050 ? UInt16.max - 49 : 1
            localPort = 80
            let flags: TCPFlags = choice & 8 != 0 ? [.syn, .ece, .cwr] : .syn
            send(flags, seq: connection.iss, ack: nil, window: 0xFFFF, options: options, isPlain: true)
            settle()
            send(.ack, seq: connection.next, ack: connection.highest, window: 0xFFFF)
        }
        settle()
    }

    private mutating func sendOddSegment() {
        let flags = TCPFlags(rawValue: byte())
        let seq = connection.next &+ offset(byte())
        let ack = connection.highest &+ offset(byte())
        let window = UInt16(byte()) << 8 | UInt16(byte())
        let count = Int(byte()) * 5
        var options = TCPOptions()
        let choice = byte()
        if choice & 1 != 0 { options.maximumSegmentSize = UInt16(choice) << 4 }
        if choice & 2 != 0 { options.windowScale = choice >> 2 }
        if choice & 4 != 0 { options.isSACKPermitted = true }
        if choice & 8 != 0 { options.timestamps = .init(value: clock &+ offset(choice), echoReply: connection.echo ?? 0) }
        if choice & 16 != 0 { options.sack.append(SequenceRange(SequenceNumber(ack), SequenceNumber(ack &+ UInt32(choice)))) }
        let start = seq &+ (flags.contains(.syn) ? 1 : 0)
        let text = (0..<count).map { Self.pattern(start &+ UInt32($0)) }
        send(
            flags, seq: seq, ack: flags.contains(.ack) ? ack : nil, window: window, text: text, options: options, isPlain: choice & 32 != 0)
        // What fits was taken; going on behind it keeps the script deep.
        if seq == connection.next, !flags.contains(.syn) {
            connection.next &+= UInt32(count) + (flags.contains(.fin) ? 1 : 0)
        }
    }

    private mutating func sendData(_ size: UInt8, ahead: UInt32) {
        let seq = connection.next &+ ahead
        let text = (0..<Int(size) * 5).map { Self.pattern(seq &+ UInt32($0)) }
        send([.ack, .psh], seq: seq, ack: connection.highest, window: 0xFFFF, text: text)
        if ahead == 0 { connection.next &+= UInt32(text.count) }
    }

    private mutating func send(
        _ flags: TCPFlags, seq: UInt32, ack: UInt32?, window: UInt16, text: [UInt8] = [], options: TCPOptions = TCPOptions(),
        isPlain: Bool = false, ecn: ECN = .notECT, urgentPointer: UInt16 = 0
    ) {
        var options = options
        if !isPlain, options.timestamps == nil, let echo = connection.echo {
            options.timestamps = .init(value: clock, echoReply: echo)
        }
        let packet = TCPScript.packet(
            from: SocketEndpoint(remote, port: remotePort), to: SocketEndpoint(local, port: localPort), flags: flags, seq: seq,
            ack: ack ?? 0, window: window, text: text, options: options, ecn: ecn, urgentPointer: urgentPointer)
        if history.count >= 8 { history.removeFirst() }
        history.append(packet)
        receive(packet)
    }

    private mutating func sendError() {
        let (kind, code, mtu) = (byte(), byte(), UInt16(byte()) << 8 | UInt16(byte()))
        var quoted = Array(lastPacket.prefix(80))
        let header = local.family == .v4 ? 20 : 40
        let shift = byte()
        if shift != 0, quoted.count >= header + 8 {
            let sequence = quoted.span.bytes.bigEndian32(at: header + 4) &+ offset(shift)
            var span = quoted.mutableSpan
            var bytes = span.mutableBytes
            bytes.storeBigEndian(sequence, at: header + 4)
        }
        var message = [kind, code, 0, 0, 0, 0, UInt8(mtu >> 8), UInt8(mtu & 255)] + quoted
        var checksum = InternetChecksum()
        if local.family == .v6 {
            checksum.addPseudoHeader(source: remote, destination: local, length: message.count, protocolNumber: 58)
        }
        checksum.add(message.span.bytes)
        (message[2], message[3]) = (UInt8(checksum.value >> 8), UInt8(checksum.value & 255))
        receive(packet(message, ICMPMessage.ipProtocol(local.family)))
    }

    /// A fragment of any kind: of TCP, UDP or ICMP, with any offset.
    private mutating func sendFragment() {
        let (kind, place, identification) = (byte(), UInt16(byte()), byte())
        let text = take(Int(byte()) & ~7)
        let isLast = kind & 1 != 0
        let upper: IPProtocol = [.tcp, .udp, ICMPMessage.ipProtocol(local.family), IPProtocol(rawValue: 99)][Int(kind >> 1) % 4]
        var fragment: [UInt8]
        if local.family == .v4 {
            fragment = packet(text, upper)
            let field = place | (isLast ? 0 : 0x2000)
            fragment.replaceSubrange(4..<8, with: [0, identification, UInt8(field >> 8), UInt8(field & 255)])
            (fragment[10], fragment[11]) = (0, 0)
            var checksum = InternetChecksum()
            checksum.add(fragment.span.bytes.extracting(0..<20))
            (fragment[10], fragment[11]) = (UInt8(checksum.value >> 8), UInt8(checksum.value & 255))
        } else {
            let field = place << 3 | (isLast ? 0 : 1)
            let header = [upper.rawValue, 0, UInt8(field >> 8), UInt8(field & 255), 0, 0, 0, identification]
            fragment = packet(header + text, IPProtocol(rawValue: 44))
        }
        receive(fragment)
    }

    /// UDP, to a port that is open or not, with a length and a checksum that are right or not.
    private mutating func sendDatagram() {
        let (port, fault) = (byte(), byte())
        let text = take(Int(byte()))
        var datagram = [0, 99, 0, port, 0, UInt8(truncatingIfNeeded: 8 + text.count &+ Int(fault >> 6)), 0, 0] + text
        if fault & 1 == 0 {
            var checksum = InternetChecksum()
            checksum.addPseudoHeader(source: remote, destination: local, length: datagram.count, protocolNumber: 17)
            checksum.add(datagram.span.bytes)
            (datagram[6], datagram[7]) = (UInt8(checksum.value >> 8), UInt8(checksum.value & 255))
        }
        receive(packet(datagram, .udp))
    }

    private func packet(_ payload: [UInt8], _ upper: IPProtocol) -> [UInt8] {
        let header = local.family == .v4 ? 20 : 40
        var packet = [UInt8](repeating: 0, count: header) + payload
        var span = packet.mutableSpan
        var bytes = span.mutableBytes
        IPHeader.write(
            into: &bytes, at: 0, source: remote, destination: local, upperProtocol: upper, payloadLength: payload.count)
        return packet
    }

    private mutating func receive(_ packet: [UInt8]) { stack.receive(packet.span.bytes, now: now) }

    // MARK: What the application does

    private mutating func command(_ choice: UInt8) {
        guard let id else { return }
        switch choice % 8 {
        case 0...2: stack.closeWrite(id, now: now)
        case 3, 4: stack.close(id, now: now)
        case 5: stack.abort(id, now: now)
        case 6: stack.purge(remote: [IPPrefix(host: remote)], now: now)
        default: isOurs.toggle()
        }
    }

    private mutating func write(_ count: Int) {
        guard let id else { return }
        let text = (0..<count).map { Self.pattern(UInt32(bytesWritten + $0 + 1)) }
        bytesWritten += (try? stack.write(id, text.span.bytes, now: now)) ?? 0
    }

    private mutating func read(_ limit: Int) {
        guard let id else { return }
        var buffer = [UInt8](repeating: 0, count: limit)
        var count = 0
        do {
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            count = (try? stack.read(id, into: &bytes, now: now)) ?? 0
        }
        for place in 0..<count {
            precondition(
                buffer[place] == Self.pattern(readFrom &+ UInt32(bytesRead + place)), "byte \(bytesRead + place) is not what was sent")
        }
        bytesRead += count
    }

    // MARK: What has to hold

    private mutating func settle() {
        while let event = stack.pollEvent() {
            switch event {
            case .accepted(_, let accepted):
                // Those that the script has left behind live on by themselves.
                guard stack.endpoints(of: accepted)?.remote.port == remotePort else { break }
                id = accepted
                (bytesRead, bytesWritten) = (0, 0)
                readFrom = connection.iss &+ 1
            case .closed(let closed, _): if closed == id { id = nil }
            case .connected, .readable, .writable, .urgent, .inputClosed, .inputReset: break
            case .datagrams, .udpWritable, .udpError, .udpClosed: break
            }
        }
        var buffer = [UInt8](repeating: 0, count: 2048)
        for count in 0... {
            precondition(count < 10_000, "it sends for ever")
            var range: Range<Int>?
            do {
                var span = buffer.mutableSpan
                var bytes = span.mutableBytes
                range = stack.pollTransmit(into: &bytes, at: 0, now: now)
            }
            guard let range else { break }
            precondition(range.count <= mtu, "\(range.count) bytes on an MTU of \(mtu)")
            look(Array(buffer[range]))
        }
        if let broken = stack.brokenInvariant() { preconditionFailure(broken) }
    }

    private mutating func look(_ packet: [UInt8]) {
        guard (try? IPHeader(parsing: packet.span.bytes)) != nil else { preconditionFailure("it sent what does not parse") }
        guard let segment = TCPScript.parse(packet) else { return }
        lastPacket = packet
        guard segment.sourcePort == localPort, segment.destinationPort == remotePort, !segment.flags.contains(.rst) else { return }
        let isAnother = segment.flags.contains(.ack) && segment.ack &- 1 != connection.iss
        if segment.flags.contains(.syn), isAnother || connection.irs != segment.seq {
            connection.irs = segment.seq
            connection.highest = segment.seq &+ 1
            // A SYN out of the middle of a script may begin a connection as well.
            if segment.flags.contains(.ack) { (connection.iss, connection.next) = (segment.ack &- 1, segment.ack) }
        }
        if let value = segment.tsVal { connection.echo = value }
        guard let irs = connection.irs else { return }
        let end = segment.seq &+ UInt32(segment.text.count) &+ (segment.flags.contains(.fin) ? 1 : 0)
        if Int32(bitPattern: end &- connection.highest) > 0 { connection.highest = end }
        for (place, value) in segment.text.enumerated() where id != nil {
            precondition(value == Self.pattern(segment.seq &- irs &+ UInt32(place)), "it sent a byte that was not written")
        }
    }

    /// Nothing may be left once the addresses have gone.
    private mutating func finish() {
        if let socket { stack.closeUDP(socket) }
        stack.setAddresses([], now: now)
        settle()
        pass(.seconds(200))
        settle()
        let counts = stack.counts
        precondition(counts.connections == 0 && counts.timeWait == 0, "\(counts) at the end")
        precondition(counts.bufferedBytes == 0 && counts.bufferMemory == 0, "\(counts) at the end")
    }

    private mutating func pass(_ duration: Duration) {
        let end = now + duration
        while let deadline = stack.nextDeadline, deadline <= end {
            now = max(now, deadline)
            stack.handleTimeout(now: now)
            settle()
        }
        now = end
    }

    private mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

    private mutating func take(_ count: Int) -> [UInt8] {
        let taken = Array(rest.prefix(count))
        rest = rest.dropFirst(count)
        return taken
    }

    private var clock: UInt32 { UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000) }

    /// Somewhere in the middle of what is in flight.
    private mutating func acknowledged() -> UInt32 { connection.highest &- UInt32(byte()) * 100 }

    /// Small steps most of the time, and some that are out of every window.
    private func offset(_ value: UInt8) -> UInt32 {
        switch value {
        case 0..<100: 0
        case 100..<180: UInt32(bitPattern: Int32(value) - 140)
        case 180..<250: UInt32(bitPattern: (Int32(value) - 215) * 1000)
        default: UInt32(value) << 24
        }
    }

    /// The peer's bytes by their sequence numbers, so that replays fit; the stack's by the distance from its ISS.
    private static func pattern(_ position: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: position &* 31 ^ position >> 8) }
}
