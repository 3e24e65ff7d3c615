import Inet
import Noise

extension Device {
    /// Takes in one datagram; data is opened in place.
    ///
    /// - Parameters:
    ///   - datagram: all of it.
    ///   - source: where it came from; an authenticated message makes this the peer's endpoint.
    ///   - wallTime: civil time, reported as the time of a handshake.
    /// - Returns: the inner packet's range, or what else became of it.
    public mutating func receive(
        _ datagram: inout MutableRawSpan, from source: SocketEndpoint, now: Instant, wallTime: WallTime
    ) -> ReceiveResult {
        let result: ReceiveResult =
            switch Message.classify(datagram.bytes) {
            case .data(let receiverIndex, let counter):
                receiveData(&datagram, receiverIndex: receiverIndex, counter: counter, from: source, now: now, wallTime: wallTime)
            case .initiation: receiveInitiation(datagram.bytes, from: source, now: now)
            case .response: receiveResponse(datagram.bytes, from: source, now: now, wallTime: wallTime)
            case .cookieReply: receiveCookieReply(datagram.bytes, now: now)
            case .invalid(let reason): .dropped(reason)
            }
        if case .dropped(let reason) = result { drops.count(reason) }
        return result
    }

    // MARK: - Data (WG §5.4.6)

    @inline(__always)
    private mutating func receiveData(
        _ datagram: inout MutableRawSpan, receiverIndex: UInt32, counter: UInt64, from source: SocketEndpoint, now: Instant,
        wallTime: WallTime
    ) -> ReceiveResult {
        guard let place = indices.peer(of: receiverIndex), let slot = peers[place].keypairs.slot(ofLocalIndex: receiverIndex) else {
            return .dropped(.unknownReceiverIndex)
        }
        // Age, counter limit, authenticity, replay window.
        switch peers[place].keypairs.open(slot, &datagram, counter: counter, now: now) {
        case .dropped(let reason): return .dropped(reason)
        case .opened: break
        }
        if slot == .next { confirmNext(of: place, now: now, wallTime: wallTime) }
        let byteCount = datagram.byteCount
        let isKeepalive = byteCount == DataMessage.minimumByteCount
        peers[place].authenticatedReceived(byteCount: byteCount, now: now)
        if !isKeepalive { peers[place].timers.dataReceived(now: now) }
        if peers[place].keypairs.asksForRekeyOnReceive(now: now) { startHandshake(with: place, now: now) }
        if peers[place].endpoint != source { roam(place, to: source) }
        reschedule(place)
        if isKeepalive {
            counters.keepalivesReceived &+= 1
            return .handled
        }
        // What is authentic need not be well-formed: length and source are the peer's word only.
        let plaintext = DataMessage.headerByteCount..<byteCount - DataMessage.tagByteCount
        guard let inner = IPHeader.routing(of: datagram.bytes.extracting(plaintext)) else { return .dropped(.malformedInnerPacket) }
        guard routes.lookup(inner.source) == place else { return .dropped(.sourceNotAllowed) }
        counters.packetsReceived &+= 1
        return .packet(plaintext.lowerBound..<plaintext.lowerBound + inner.totalLength, from: peers[place].id)
    }

    /// The first data on a session that we answered for: the initiator has the keys (WG §6.3).
    private mutating func confirmNext(of place: Int, now: Instant, wallTime: WallTime) {
        switch peers[place].keypairs.confirmNext(indices: &indices) {
        case .superseded: break
        case .promoted:
            peers[place].handshakeCompleted(now: now, wallTime: wallTime)
            counters.sessionsEstablished &+= 1
            emit(.sessionEstablished(peers[place].id))
            outbox.enqueue(&peers[place])
        }
    }

    // MARK: - Handshake messages (WG §5.4.2, §5.4.3, §5.4.7)

    private mutating func receiveInitiation(_ message: RawSpan, from source: SocketEndpoint, now: Instant) -> ReceiveResult {
        guard macKeys.isValidMAC1(message: message) else { return .dropped(.invalidMAC1) }
        do throws(HandshakeError) {
            var handshake = try ResponderHandshake.receive(initiation: message, staticKey: privateKey, staticPublic: publicKey)
            guard let place = placeByKey[handshake.remoteStatic] else { return .dropped(.unknownPeer) }
            guard peers[place].isUsable else { return .dropped(.unusablePeer) }
            let timestamp = try handshake.openTimestamp(precomputedStaticStatic: peers[place].staticStatic)
            if let last = peers[place].lastTimestamp, timestamp <= last {
                peers[place].refusedTimestamps &+= 1
                peers[place].lastRefusedTimestamp = timestamp
                return .dropped(.staleTimestamp)
            }
            if let last = peers[place].lastInitiationAcceptedAt, now < last + Constants.initiationInterval {
                return .dropped(.initiationFlood)
            }
            try respond(to: handshake, of: place, from: source, now: now)
            peers[place].lastTimestamp = timestamp
            peers[place].refusedTimestamps = 0
            peers[place].lastRefusedTimestamp = nil
            peers[place].lastInitiationAcceptedAt = now
            peers[place].authenticatedReceived(byteCount: message.byteCount, now: now)
            peers[place].timers.sessionDerived(now: now, random: random)
            if peers[place].endpoint != source { roam(place, to: source) }
            outbox.enqueue(&peers[place])
            reschedule(place)
            return .handled
        } catch {
            return .dropped(DropReason(error))
        }
    }

    private mutating func respond(
        to handshake: consuming ResponderHandshake, of place: Int, from source: SocketEndpoint, now: Instant
    ) throws(HandshakeError) {
        let remoteIndex = handshake.senderIndex
        let localIndex = indices.draw(for: place, random: random)
        var message = [UInt8](repeating: 0, count: HandshakeMessage.responseByteCount)
        do throws(HandshakeError) {
            var span = message.mutableSpan
            var bytes = unsafe span.mutableBytes
            let keys: TransportKeys
            if let presharedKey = peers[place].presharedKey {
                keys = try handshake.respond(into: &bytes, responderIndex: localIndex, presharedKey: presharedKey.key, random: random)
            } else {
                keys = try handshake.respond(into: &bytes, responderIndex: localIndex, presharedKey: .zero(), random: random)
            }
            peers[place].keypairs.installAsResponder(
                Keypair(keys: keys, localIndex: localIndex, remoteIndex: remoteIndex, isInitiator: false, now: now), indices: &indices)
        } catch {
            indices.remove(localIndex)
            throw error
        }
        peers[place].pendingResponse = Peer.PendingResponse(message: message, endpoint: source)
    }

    private mutating func receiveResponse(
        _ message: RawSpan, from source: SocketEndpoint, now: Instant, wallTime: WallTime
    ) -> ReceiveResult {
        guard macKeys.isValidMAC1(message: message) else { return .dropped(.invalidMAC1) }
        let localIndex = message.littleEndian32(at: HandshakeIndex.responseReceiver)
        guard let place = indices.peer(of: localIndex), peers[place].initiationIndex == localIndex,
            let initiation = peers[place].initiation.take()
        else { return .dropped(.unknownReceiverIndex) }
        let startedAt = initiation.sentAt
        let keys: TransportKeys
        do throws(HandshakeError) {
            if let presharedKey = peers[place].presharedKey {
                keys = try initiation.handshake.finish(response: message, staticKey: privateKey, presharedKey: presharedKey.key)
            } else {
                keys = try initiation.handshake.finish(response: message, staticKey: privateKey, presharedKey: .zero())
            }
        } catch {
            // A forged response must not end the handshake.
            peers[place].initiation = consume initiation
            return .dropped(DropReason(error))
        }
        // The index goes from the handshake to the keypair.
        peers[place].initiationIndex = nil
        let keypair = Keypair(
            keys: keys, localIndex: localIndex, remoteIndex: message.littleEndian32(at: HandshakeIndex.sender), isInitiator: true, now: now)
        let prefersPeer = peers[place].isPreferredInitiator
        peers[place].keypairs.installAsInitiator(keypair, startedAt: startedAt, prefersPeer: prefersPeer, indices: &indices)
        peers[place].authenticatedReceived(byteCount: message.byteCount, now: now)
        peers[place].timers.sessionDerived(now: now, random: random)
        peers[place].handshakeCompleted(now: now, wallTime: wallTime)
        // Staged packets or an empty one: the responder may not send before it sees one (WG §6.3).
        peers[place].wantsKeepalive = true
        if peers[place].endpoint != source { roam(place, to: source) }
        counters.sessionsEstablished &+= 1
        emit(.sessionEstablished(peers[place].id))
        outbox.enqueue(&peers[place])
        reschedule(place)
        return .handled
    }

    /// A cookie reply is not the peer's word that it is there: no timer, and never the endpoint.
    private mutating func receiveCookieReply(_ message: RawSpan, now: Instant) -> ReceiveResult {
        guard let place = indices.peer(of: message.littleEndian32(at: HandshakeIndex.cookieReplyReceiver)) else {
            return .dropped(.unknownReceiverIndex)
        }
        let keys = peers[place].macKeys
        guard peers[place].cookies.receive(message, keys: keys, now: now) else { return .dropped(.invalidCookieReply) }
        counters.cookiesReceived &+= 1
        return .handled
    }

    private mutating func roam(_ place: Int, to source: SocketEndpoint) {
        peers[place].endpoint = source
        emit(.endpointChanged(peers[place].id, source))
    }
}

extension DropReason {
    /// The reason to count when a handshake goes no further.
    init(_ error: HandshakeError) {
        switch error {
        case .malformed, .authenticationFailed, .wrongReceiverIndex: self = .handshakeNotAuthentic
        case .lowOrderPoint: self = .lowOrderPoint
        }
    }
}
