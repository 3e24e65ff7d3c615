import Inet

/// Packets in: IP, then ICMP, UDP or TCP, each check a step of its own.
extension Stack {
    /// Takes one IP packet. What is wrong with it is counted in `drops`; it never throws and never traps.
    public mutating func receive(_ packet: RawSpan, now: Instant) {
        let header: IPHeader
        do { header = try IPHeader(parsing: packet) } catch { return drops.count(.malformedPacket) }
        guard header.source.isUnicastInsideTunnel, !addresses.contains(header.source) else { return drops.count(.spoofedSource) }
        guard addresses.contains(header.destination) else { return drops.count(.notOurs) }
        guard passesHeaderOptions(packet, header: header, now: now) else { return }
        guard header.fragment == nil else { return receiveFragment(packet, header: header, now: now) }
        receiveWhole(packet, header: header, now: now)
    }

    /// Takes a packet that is ours and no fragment.
    mutating func receiveWhole(_ packet: RawSpan, header: IPHeader, now: Instant) {
        let payload = packet.extracting(header.payload)
        switch header.upperProtocol {
        case .tcp: receiveTCP(payload, header: header, now: now)
        case .icmp where header.source.family == .v4, .icmpV6 where header.source.family == .v6:
            receiveICMP(payload, header: header, now: now)
        case .udp: receiveUDP(payload, packet: packet.extracting(0..<header.totalLength), header: header, now: now)
        case ExtensionHeaders.noNextHeader where header.source.family == .v6: drops.count(.unknownProtocol)
        default: refuse(.ipProtocol, packet.extracting(0..<header.totalLength), header: header, now: now)
        }
    }

    // MARK: TCP

    private mutating func receiveTCP(_ segment: RawSpan, header ip: IPHeader, now: Instant) {
        guard let header = TCPHeader(parsing: segment) else { return drops.count(.malformedSegment) }
        var checksum = InternetChecksum()
        checksum.addPseudoHeader(
            source: ip.source, destination: ip.destination, length: segment.byteCount, protocolNumber: TCPHeader.protocolNumber)
        checksum.add(segment)
        guard checksum.value == 0 else { return drops.count(.badChecksum) }
        tally.segmentsReceived &+= 1
        if header.flags.contains(.rst) { tally.resetsReceived &+= 1 }
        let options = TCPOptions(parsing: segment.extracting(TCPHeader.minimumLength..<header.headerLength))
        let text = segment.extracting(header.headerLength..<segment.byteCount)
        let local = SocketEndpoint(ip.destination, port: header.destinationPort)
        let remote = SocketEndpoint(ip.source, port: header.sourcePort)
        let hash = flowHash.hash(local: local, remote: remote)
        switch flow(local: local, remote: remote, hash: hash) {
        case .connection(let index):
            receive(header, options: options, text: text, ecn: ECN(trafficClass: ip.trafficClass), for: index, now: now)
        case .timeWait(let index):
            if timeWait[index].admits(header, options: options), listener(for: local) != nil {
                removeTimeWait(index)
                receiveWithoutConnection(
                    header, options: options, text: text, local: local, remote: remote, hash: hash, now: now)
            } else {
                receiveInTimeWait(header, textCount: text.byteCount, index: index, now: now)
            }
        case .halfOpen(let index): receive(header, options: options, text: text, forHalfOpen: index, hash: hash, now: now)
        case nil:
            receiveWithoutConnection(header, options: options, text: text, local: local, remote: remote, hash: hash, now: now)
        }
    }

    mutating func receive(
        _ header: TCPHeader, options: TCPOptions, text: RawSpan, ecn: ECN, for index: Int, now: Instant
    ) {
        if connections[index].state == .synReceived, let id = connections[index].listener, let slot = listenerIndex(id),
            !listeners[slot].hasRoom, !header.flags.contains(.rst)
        {
            // The SYN and ACK goes again later; the peer repeats its ACK or its data.
            return drops.count(.synQueueFull)
        }
        switch connections[index].receive(header, options: options, text: text, ecn: ecn, now: now) {
        case .taken: break
        case .dropped(let reason): drops.count(reason)
        case .reset(let sequence):
            drops.count(.badAcknowledgment)
            reply(
                from: connections[index].local, to: connections[index].remote, sequence: sequence, acknowledgment: SequenceNumber(0),
                flags: .rst, now: now)
        }
        settle(index, now: now)
        evictIfNeeded(now: now)
    }

    /// LISTEN and CLOSED: RFC 9293 §3.10.7.2 and §3.10.7.1.
    private mutating func receiveWithoutConnection(
        _ header: TCPHeader, options: TCPOptions, text: RawSpan, local: SocketEndpoint, remote: SocketEndpoint, hash: UInt64, now: Instant
    ) {
        if header.flags.contains(.rst) { return drops.count(.noConnection) }
        if header.flags.contains(.syn), header.flags.isDisjoint(with: [.ack, .fin]), remote.port != 0,
            let listener = listener(for: local)
        {
            return receiveSYN(header, options: options, local: local, remote: remote, listener: listener, hash: hash, now: now)
        }
        if receiveCookie(header, options: options, text: text, local: local, remote: remote, hash: hash, now: now) { return }
        drops.count(.noConnection)
        if header.flags.contains(.ack) {
            reply(from: local, to: remote, sequence: header.acknowledgment, acknowledgment: SequenceNumber(0), flags: .rst, now: now)
        } else {
            let length = text.byteCount + (header.flags.contains(.syn) ? 1 : 0) + (header.flags.contains(.fin) ? 1 : 0)
            reply(
                from: local, to: remote, sequence: SequenceNumber(0), acknowledgment: header.sequence + length, flags: [.rst, .ack],
                now: now)
        }
    }

    func listener(for local: SocketEndpoint) -> Slab<Listener>.Handle? {
        guard let handles = listenersByPort[local.port] else { return nil }
        var wildcard: Slab<Listener>.Handle?
        for handle in handles {
            guard let address = listeners[Int(handle.index)].address else {
                wildcard = handle
                continue
            }
            if address == local.address { return handle }
        }
        return wildcard
    }

    /// RFC 9293 §3.10.7.4 for TIME-WAIT; RFC 1337: a reset does not end it.
    private mutating func receiveInTimeWait(_ header: TCPHeader, textCount: Int, index: Int, now: Instant) {
        drops.count(.timeWait)
        guard !header.flags.contains(.rst) else { return }
        guard textCount > 0 || !header.flags.isDisjoint(with: [.syn, .fin]) else { return }
        let record = timeWait[index]
        if header.flags.contains(.fin), header.sequence + textCount + 1 == record.rcvNxt {
            timeWait.restart(index, expires: now + configuration.timeWait, step: configuration.timeWait / 4)
        }
        var options = TCPOptions()
        if record.hasTimestamps {
            let clock = UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000)
            options.timestamps = .init(value: clock &+ record.tsOffset, echoReply: record.tsRecent)
        }
        reply(
            from: record.local, to: record.remote, sequence: record.sndNxt, acknowledgment: record.rcvNxt, flags: .ack, window: 0xFFFF,
            options: options, now: now)
    }

    // MARK: ICMP

    private mutating func receiveICMP(_ message: RawSpan, header: IPHeader, now: Instant) {
        var checksum = InternetChecksum()
        if header.source.family == .v6 {
            checksum.addPseudoHeader(
                source: header.source, destination: header.destination, length: message.byteCount,
                protocolNumber: header.upperProtocol.rawValue)
        }
        checksum.add(message)
        guard checksum.value == 0 else { return drops.count(.badChecksum) }
        switch ICMPMessage(parsing: message, family: header.source.family) {
        case .echoRequest:
            let room = configuration.mtu - SegmentWriter.ipHeaderLength(header.source.family)
            var message = message
            if message.byteCount > room {
                // RFC 1122 §3.2.2.6: cut, since we do not fragment. RFC 4443 §4.2 wants all of the data or nothing.
                guard header.source.family == .v4 else { return drops.count(.unhandledICMP) }
                message = message.extracting(0..<room)
            }
            guard icmpLimit.take(now: now) else { return drops.count(.rateLimited) }
            var buffer = takeScratch()
            defer { scratch = buffer }
            var span = buffer.mutableSpan
            var bytes = unsafe span.mutableBytes
            let range = ICMPResponder.writeEchoReply(message, from: header.destination, to: header.source, into: &bytes)
            if !replies.append(bytes.bytes.extracting(range)) { drops.count(.replyQueueFull) }
        case .error(let error):
            let quoted = message.extracting(ICMPMessage.headerLength..<message.byteCount)
            if let datagram = ICMPMessage.quotedDatagram(in: quoted) {
                return receiveUDPError(error, local: datagram.local, remote: datagram.remote)
            }
            guard let segment = ICMPMessage.quotedSegment(in: quoted),
                case .connection(let index) = flow(
                    local: segment.local, remote: segment.remote, hash: flowHash.hash(local: segment.local, remote: segment.remote)),
                connections[index].receiveICMPError(error, sequence: segment.sequence, now: now)
            else { return drops.count(.unmatchedError) }
            settle(index, now: now)
        case .other: drops.count(.unhandledICMP)
        }
    }

    mutating func refuse(_ reason: ICMPResponder.Problem, _ packet: RawSpan, header: IPHeader, now: Instant) {
        drops.count(reason == .port ? .noSocket : .unknownProtocol)
        sendError(reason, packet, header: header, now: now)
    }

    /// Tells the source of `packet` what is wrong with it; never about an ICMP error (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
    mutating func sendError(_ problem: ICMPResponder.Problem, _ packet: RawSpan, header: IPHeader, now: Instant) {
        guard !ICMPMessage.isError(packet.extracting(header.payload), header: header) else { return }
        guard icmpLimit.take(now: now) else { return drops.count(.rateLimited) }
        var buffer = takeScratch()
        defer { scratch = buffer }
        var span = buffer.mutableSpan
        var bytes = unsafe span.mutableBytes
        let range = ICMPResponder.writeError(
            problem, offending: packet.extracting(0..<header.totalLength), headerLength: header.headerLength, from: header.destination,
            to: header.source, into: &bytes)
        if !replies.append(bytes.bytes.extracting(range)) { drops.count(.replyQueueFull) }
    }
}
