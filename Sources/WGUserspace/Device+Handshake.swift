import Inet
import Noise

extension Device {
    /// Whether handshake messages wait to be handled.
    public var hasQueuedHandshakes: Bool { handshakes.count > 0 || !handedInitiations.isEmpty }

    /// How many handshake messages wait.
    public var queuedHandshakeCount: Int { handshakes.count + handedInitiations.count }

    /// Whether handshakes have to show a cookie now.
    public func isUnderLoad(now: Instant) -> Bool { load.isUnderLoad(now: now) }

    /// Handles the oldest handshake message that waits. The order is that of cost: load, mac2, rate, and only then key agreements.
    ///
    /// - Parameter wallTime: civil time: when the handshake was, and what its timestamp is compared with.
    /// - Returns: what became of the message; `nil` if none waits.
    @discardableResult
    public mutating func handleQueuedHandshake(now: Instant, wallTime: WallTime) -> ReceiveResult? {
        load.noteQueue(handshakes.count, now: now)
        noteLoad(now: now)
        if let handed = handedInitiations.popFirst() { return accept(handed, now: now, wallTime: wallTime) }
        var work = HandshakeQueue.MessageBuffer(repeating: 0)
        guard let entry = handshakes.popFirst(into: &work) else { return nil }
        // Integers have no padding, so that looking at their bytes is sound.
        let message = unsafe work.span.bytes.extracting(0..<entry.byteCount)
        let result = handle(message, entry, now: now, wallTime: wallTime)
        if case .dropped(let reason) = result { drops.count(reason) }
        return result
    }

    /// Says how long handshakes took just now. More than a fifth of a second within a second is load.
    public mutating func recordHandshakeWork(_ time: Duration, now: Instant) {
        load.noteWork(Interval(time), now: now)
        noteLoad(now: now)
    }

    // MARK: - The queue (WG §5.3)

    /// mac1 comes first: it costs a microsecond, and keeps out all who do not know our public key.
    mutating func queueHandshake(_ message: RawSpan, from source: SocketEndpoint, to local: IPAddress?, now: Instant) -> ReceiveResult {
        guard hasPrivateKey else { return .dropped(.noPrivateKey) }
        guard macKeys.isValidMAC1(message: message) else { return .dropped(.invalidMAC1) }
        guard handshakes.append(message, from: source, to: local) else { return .dropped(.handshakeQueueFull) }
        return .queued
    }

    /// Tells the owner when load begins and ends.
    mutating func noteLoad(now: Instant) {
        let isUnderLoad = load.isUnderLoad(now: now)
        guard isUnderLoad != wasUnderLoad else { return }
        wasUnderLoad = isUnderLoad
        emit(.underLoad(isUnderLoad))
    }

    private mutating func handle(_ message: RawSpan, _ entry: HandshakeQueue.Arrival, now: Instant, wallTime: WallTime) -> ReceiveResult {
        guard hasPrivateKey else { return .dropped(.noPrivateKey) }
        if load.isUnderLoad(now: now) {
            guard cookieChecker.isValidMAC2(of: message, from: entry.source, now: now) else {
                return askForCookie(message, entry, now: now)
            }
            guard rateLimiter.allows(entry.source.address, random: random, now: now) else { return .dropped(.rateLimited) }
        }
        // The queue took nothing but these two.
        return entry.byteCount == HandshakeMessage.initiationByteCount
            ? receiveInitiation(message, from: entry.source, to: entry.local, now: now, wallTime: wallTime)
            : receiveResponse(message, from: entry.source, to: entry.local, now: now, wallTime: wallTime)
    }

    // MARK: - Cookies (WG §5.4.7)

    /// A cookie reply that waits to be sent.
    struct CookieReply {
        var message: InlineArray<8, UInt64>
        var endpoint: SocketEndpoint
        var localAddress: IPAddress?
    }

    private mutating func askForCookie(_ message: RawSpan, _ entry: HandshakeQueue.Arrival, now: Instant) -> ReceiveResult {
        guard cookieReplies.count < Constants.maximumCookieReplies else { return .dropped(.cookieReplyQueueFull) }
        // Integers have no padding, here and below.
        var reply = InlineArray<8, UInt64>(repeating: 0)
        var span = reply.mutableSpan
        var bytes = unsafe span.mutableBytes
        cookieChecker.writeReply(to: message, from: entry.source, into: &bytes, keys: macKeys, random: random, now: now)
        cookieReplies.append(CookieReply(message: reply, endpoint: entry.source, localAddress: entry.local))
        return .dropped(.cookieRequired)
    }

    mutating func writeCookieReply(_ reply: CookieReply, into buffer: inout MutableRawSpan, at offset: Int) -> Transmit {
        buffer.copy(unsafe reply.message.span.bytes, at: offset)
        counters.cookieRepliesSent &+= 1
        return Transmit(
            range: offset..<offset + HandshakeMessage.cookieReplyByteCount, endpoint: reply.endpoint, source: reply.localAddress, peer: nil,
            isHandshake: true
        )
    }

    // MARK: - Handshake messages (WG §5.4.2, §5.4.3, §5.4.7)

    private mutating func receiveInitiation(
        _ message: RawSpan, from source: SocketEndpoint, to local: IPAddress?, now: Instant, wallTime: WallTime
    ) -> ReceiveResult {
        do throws(HandshakeError) {
            let handshake = try ResponderHandshake.receive(initiation: message, staticKey: privateKey, staticPublic: publicKey)
            let loop = configuration.share.loop(of: handshake.remoteStatic)
            guard loop == configuration.share.index else { return handOver(handshake, from: source, to: local, loop: loop) }
            return accept(handshake, from: source, to: local, now: now, wallTime: wallTime)
        } catch {
            return .dropped(DropReason(error))
        }
    }

    /// The rest of an initiation, whose static key has been read.
    mutating func accept(
        _ initiation: consuming ResponderHandshake, from source: SocketEndpoint, to local: IPAddress?, now: Instant, wallTime: WallTime
    ) -> ReceiveResult {
        var handshake = initiation
        guard let place = placeByKey[handshake.remoteStatic] else { return .dropped(.unknownPeer) }
        guard agree(withPeerAt: place) else { return .dropped(.unusablePeer) }
        do throws(HandshakeError) {
            let timestamp = try handshake.openTimestamp(precomputedStaticStatic: peers[place].staticStatic)
            let verdict = peers[place].timestamps.judge(timestamp, wallTime: wallTime)
            guard verdict != .refused else {
                if peers[place].timestamps.refuse(timestamp) { emit(.timestampRefused(peers[place].id, timestamp)) }
                return .dropped(.staleTimestamp)
            }
            if let last = peers[place].lastInitiationAcceptedAt, now < last + Constants.initiationInterval {
                return .dropped(.initiationFlood)
            }
            try respond(to: handshake, of: place, from: source, at: local, now: now)
            let isFirstFarAhead = verdict == .newAndFarAhead && !peers[place].timestamps.hasFarAhead
            peers[place].timestamps.accept(timestamp, as: verdict)
            if verdict == .new { emit(.timestampAccepted(peers[place].id, timestamp)) }
            if isFirstFarAhead { emit(.timestampFarAhead(peers[place].id, timestamp)) }
            counters.initiationsReceived &+= 1
            peers[place].handshakes.initiationsReceived &+= 1
            peers[place].lastInitiationAcceptedAt = now
            peers[place].authenticatedReceived(byteCount: HandshakeMessage.initiationByteCount, now: now)
            peers[place].timers.sessionDerived(now: now, random: random)
            roam(place, to: source, at: local)
            outbox.enqueue(&peers[place])
            reschedule(place)
            return .handled
        } catch {
            return .dropped(DropReason(error))
        }
    }

    private mutating func respond(
        to handshake: consuming ResponderHandshake, of place: Int, from source: SocketEndpoint, at local: IPAddress?, now: Instant
    ) throws(HandshakeError) {
        let remoteIndex = handshake.senderIndex
        let localIndex = indices.draw(for: place, random: random)
        var message = [UInt8](repeating: 0, count: HandshakeMessage.responseByteCount)
        do throws(HandshakeError) {
            var span = message.mutableSpan
            var bytes = unsafe span.mutableBytes
            var keys: TransportKeys
            if let presharedKey = peers[place].presharedKey {
                keys = try handshake.respond(into: &bytes, responderIndex: localIndex, presharedKey: presharedKey.key, random: random)
            } else {
                keys = try handshake.respond(into: &bytes, responderIndex: localIndex, presharedKey: .zero(), random: random)
            }
            keys.use(configuration.cipher)
            peers[place].keypairs.installAsResponder(
                Keypair(keys: keys, localIndex: localIndex, remoteIndex: remoteIndex, isInitiator: false, now: now), indices: &indices)
        } catch {
            indices.remove(localIndex)
            throw error
        }
        peers[place].pendingResponse = Peer.PendingResponse(message: message, endpoint: source, localAddress: local)
    }

    private mutating func receiveResponse(
        _ message: RawSpan, from source: SocketEndpoint, to local: IPAddress?, now: Instant, wallTime: WallTime
    ) -> ReceiveResult {
        let localIndex = message.littleEndian32(at: HandshakeIndex.responseReceiver)
        guard let place = indices.peer(of: localIndex), peers[place].initiationIndex == localIndex,
            let initiation = peers[place].initiation.take()
        else { return .dropped(.unknownReceiverIndex) }
        let startedAt = initiation.sentAt
        var keys: TransportKeys
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
        keys.use(configuration.cipher)
        let keypair = Keypair(
            keys: keys, localIndex: localIndex, remoteIndex: message.littleEndian32(at: HandshakeIndex.sender), isInitiator: true, now: now)
        let prefersPeer = peers[place].isPreferredInitiator
        peers[place].keypairs.installAsInitiator(keypair, startedAt: startedAt, prefersPeer: prefersPeer, indices: &indices)
        peers[place].authenticatedReceived(byteCount: message.byteCount, now: now)
        peers[place].timers.sessionDerived(now: now, random: random)
        peers[place].handshakeCompleted(now: now, wallTime: wallTime)
        // Staged packets or an empty one: the responder may not send before it sees one (WG §6.3).
        peers[place].wantsKeepalive = true
        roam(place, to: source, at: local)
        counters.responsesReceived &+= 1
        counters.sessionsEstablished &+= 1
        counters.sessionsAsInitiator &+= 1
        emit(.sessionEstablished(peers[place].id))
        outbox.enqueue(&peers[place])
        reschedule(place)
        return .handled
    }

    /// A cookie reply is not the peer's word that it is there: no timer, and never the endpoint.
    ///
    /// WG §6.6 lets the next initiation wait for REKEY-TIMEOUT, so that nobody can make us send. Here one that had no cookie is
    /// followed by one that has it at once, so that a true peer under load is reached in two round trips instead of 5 s. Whoever sees our
    /// mac1 and forges replies gains one message in the 120 s that a cookie lives, and spoils the attempt that it answers.
    mutating func receiveCookieReply(_ message: RawSpan, now: Instant) -> ReceiveResult {
        let index = message.littleEndian32(at: HandshakeIndex.cookieReplyReceiver)
        guard let place = indices.peer(of: index) else { return .dropped(.unknownReceiverIndex) }
        let publicKey = peers[place].publicKey
        let hadCookie = peers[place].cookies.hasCookie(now: now)
        guard peers[place].cookies.receive(message, from: publicKey, now: now) else { return .dropped(.invalidCookieReply) }
        counters.cookiesReceived &+= 1
        if !hadCookie, peers[place].initiationIndex == index, peers[place].isHandshaking {
            peers[place].wantsInitiation = true
            outbox.enqueue(&peers[place])
            counters.handshakesRetried &+= 1
        }
        return .handled
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
