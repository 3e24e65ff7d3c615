import Inet
import Noise

extension Device {
    /// Takes one inner packet that is to go to the peer which its destination belongs to: seals it in place, or keeps a copy until
    /// there is a session.
    ///
    /// - Parameters:
    ///   - packet: where it lies in `buffer`, with at least 16 bytes before it and 31 behind it.
    /// - Returns: the datagram that is to be sent now, or what else became of it.
    public mutating func send(_ packet: Range<Int>, in buffer: inout MutableRawSpan, now: Instant) -> SendResult {
        precondition(
            packet.lowerBound >= DataMessage.headerByteCount && packet.upperBound <= buffer.byteCount, "no room in front of the packet")
        guard let inner = IPHeader.routing(of: buffer.bytes.extracting(packet)) else {
            drops.count(.malformedOutboundPacket)
            return .dropped(.malformedOutboundPacket)
        }
        guard let place = routes.lookup(inner.destination), place != AllowedIPs.elsewhere else {
            drops.count(.noRoute)
            return .dropped(.noRoute)
        }
        guard peers[place].keypairs.isReady(now: now), let endpoint = peers[place].endpoint else {
            return stage(buffer.bytes.extracting(packet), for: place, now: now)
        }
        let length = DataMessage.paddedLength(packet.count, mtu: configuration.mtu)
        precondition(
            packet.lowerBound + length + DataMessage.tagByteCount <= buffer.byteCount, "no room behind the packet for padding and tag")
        buffer.zero(packet.upperBound..<packet.lowerBound + length)
        let ecn = ECN(of: buffer.bytes.extracting(packet))
        guard let range = seal(&buffer, at: packet.lowerBound - DataMessage.headerByteCount, length: length, to: place, now: now) else {
            return stage(buffer.bytes.extracting(packet), for: place, now: now)
        }
        return .datagram(
            Transmit(
                range: range, endpoint: endpoint, source: peers[place].localAddress, peer: peers[place].id, isHandshake: false, ecn: ecn))
    }

    /// Writes the next datagram of the device's own: handshake messages, keepalives, staged packets.
    ///
    /// - Parameters:
    ///   - offset: where to write in `buffer`, which needs room for a packet of the MTU and 80 bytes behind it.
    ///   - wallTime: civil time, which goes into an initiation.
    /// - Returns: `nil` when there is nothing left to send.
    public mutating func pollTransmit(
        into buffer: inout MutableRawSpan, at offset: Int, now: Instant, wallTime: WallTime
    ) -> Transmit? {
        if let reply = cookieReplies.popFirst() { return writeCookieReply(reply, into: &buffer, at: offset) }
        while let id = outbox.first {
            if let place = peers.place(of: id) {
                let transmit = nextTransmit(of: place, into: &buffer, at: offset, now: now, wallTime: wallTime)
                reschedule(place)
                if let transmit { return transmit }
                peers[place].isInOutbox = false
            }
            outbox.removeFirst()
        }
        return nil
    }

    // MARK: - Sealing

    /// Seals the `length` bytes that lie 16 behind `offset`, and does what sending data entails.
    @inline(__always)
    mutating func seal(
        _ buffer: inout MutableRawSpan, at offset: Int, length: Int, to place: Int, now: Instant
    ) -> Range<Int>? {
        guard let (range, wantsRekey) = peers[place].keypairs.seal(&buffer, at: offset, length: length, now: now) else { return nil }
        peers[place].authenticatedSent(byteCount: range.count, now: now)
        peers[place].wantsKeepalive = false
        if length > 0 {
            peers[place].timers.dataSent(now: now)
            counters.packetsSent &+= 1
        } else {
            counters.keepalivesSent &+= 1
        }
        if wantsRekey { startHandshake(with: place, now: now) }
        reschedule(place)
        return range
    }

    // MARK: - Staging

    /// Keeps a copy of `packet` until the peer has a session, and asks for one.
    private mutating func stage(_ packet: RawSpan, for place: Int, now: Instant) -> SendResult {
        guard hasPrivateKey else {
            drops.count(.noPrivateKey)
            return .dropped(.noPrivateKey)
        }
        guard agree(withPeerAt: place) else {
            drops.count(.unusablePeer)
            return .dropped(.unusablePeer)
        }
        let byteCount = packet.byteCount
        guard byteCount <= configuration.stagedBytesPerPeer, configuration.stagedPacketsPerPeer > 0 else {
            drops.count(.stagingPeerFull)
            return .dropped(.stagingPeerFull)
        }
        while peers[place].staged.count >= configuration.stagedPacketsPerPeer
            || peers[place].staged.byteCount + byteCount > configuration.stagedBytesPerPeer
        {
            guard dropOldest(of: place, reason: .stagingPeerFull) else { break }
        }
        while stagedByteCount + byteCount > configuration.stagedBytesTotal {
            guard dropOldest(of: place, reason: .stagingFull) else {
                drops.count(.stagingFull)
                return .dropped(.stagingFull)
            }
        }
        peers[place].staged.append(packet)
        stagedByteCount += byteCount
        startHandshake(with: place, now: now)
        reschedule(place)
        return .staged(peers[place].id)
    }

    private mutating func dropOldest(of place: Int, reason: DropReason) -> Bool {
        guard let packet = peers[place].staged.popFirst() else { return false }
        stagedByteCount -= packet.count
        drops.count(reason)
        return true
    }

    // MARK: - Outbox

    private mutating func nextTransmit(
        of place: Int, into buffer: inout MutableRawSpan, at offset: Int, now: Instant, wallTime: WallTime
    ) -> Transmit? {
        if let response = peers[place].pendingResponse.take() {
            return writeResponse(response, of: place, into: &buffer, at: offset, now: now)
        }
        if peers[place].wantsInitiation {
            peers[place].wantsInitiation = false
            if let transmit = writeInitiation(to: place, into: &buffer, at: offset, now: now, wallTime: wallTime) { return transmit }
        }
        guard peers[place].keypairs.isReady(now: now), let endpoint = peers[place].endpoint else {
            peers[place].wantsKeepalive = false
            return nil
        }
        let start = offset + DataMessage.headerByteCount
        if let packet = peers[place].staged.popFirst() {
            stagedByteCount -= packet.count
            let length = DataMessage.paddedLength(packet.count, mtu: configuration.mtu)
            precondition(start + length + DataMessage.tagByteCount <= buffer.byteCount, "no room for a staged packet")
            buffer.copy(unsafe packet.span.bytes, at: start)
            buffer.zero(start + packet.count..<start + length)
            let ecn = ECN(of: unsafe packet.span.bytes)
            return seal(&buffer, at: offset, length: length, to: place, now: now)
                .map {
                    Transmit(
                        range: $0, endpoint: endpoint, source: peers[place].localAddress, peer: peers[place].id, isHandshake: false,
                        ecn: ecn)
                }
        }
        guard peers[place].wantsKeepalive else { return nil }
        return seal(&buffer, at: offset, length: 0, to: place, now: now)
            .map {
                Transmit(range: $0, endpoint: endpoint, source: peers[place].localAddress, peer: peers[place].id, isHandshake: false)
            }
    }

    private mutating func writeResponse(
        _ response: Peer.PendingResponse, of place: Int, into buffer: inout MutableRawSpan, at offset: Int, now: Instant
    ) -> Transmit {
        let range = offset..<offset + response.message.count
        buffer.copy(unsafe response.message.span.bytes, at: offset)
        var message = buffer._mutatingExtracting(range)
        peers[place].cookies.prepare(&message, byteCount: range.count, now: now)
        peers[place].authenticatedSent(byteCount: range.count, now: now)
        counters.responsesSent &+= 1
        return Transmit(
            range: range, endpoint: response.endpoint, source: response.localAddress, peer: peers[place].id, isHandshake: true)
    }

    private mutating func writeInitiation(
        to place: Int, into buffer: inout MutableRawSpan, at offset: Int, now: Instant, wallTime: WallTime
    ) -> Transmit? {
        guard let endpoint = peers[place].endpoint, hasPrivateKey, agree(withPeerAt: place) else { return nil }
        peers[place].forgetInitiation(indices: &indices)
        let index = indices.draw(for: place, random: random)
        let timestamp = nextTimestamp(for: place, wallTime: wallTime)
        let range = offset..<offset + HandshakeMessage.initiationByteCount
        var message = buffer._mutatingExtracting(range)
        do throws(HandshakeError) {
            let handshake = try InitiatorHandshake.initiate(
                into: &message, staticPublic: publicKey, remote: peers[place].publicKey, precomputedStaticStatic: peers[place].staticStatic,
                senderIndex: index, timestamp: timestamp, random: random)
            peers[place].initiation = Peer.Initiation(handshake: handshake, sentAt: now)
            peers[place].initiationIndex = index
        } catch {
            // A key of low order has no static-static secret, and was sorted out before.
            indices.remove(index)
            drops.count(DropReason(error))
            return nil
        }
        peers[place].cookies.prepare(&message, byteCount: range.count, now: now)
        peers[place].lastInitiationSentAt = now
        peers[place].timers.retransmitHandshake = now + Constants.rekeyTimeout + random.jitter()
        peers[place].authenticatedSent(byteCount: range.count, now: now)
        counters.initiationsSent &+= 1
        peers[place].handshakes.initiationsSent &+= 1
        emit(.timestampSent(timestamp))
        return Transmit(range: range, endpoint: endpoint, source: peers[place].localAddress, peer: peers[place].id, isHandshake: true)
    }

    /// A timestamp that is later than all that this peer has seen of us, even if the clock stood still or stepped back.
    private mutating func nextTimestamp(for place: Int, wallTime: WallTime) -> TAI64N {
        var timestamp = TAI64N(wallTime)
        if let last = peers[place].lastSentTimestamp ?? timestampFloor, timestamp <= last { timestamp = last.next() }
        peers[place].lastSentTimestamp = timestamp
        lastSentTimestamp = max(lastSentTimestamp ?? timestamp, timestamp)
        return timestamp
    }
}
