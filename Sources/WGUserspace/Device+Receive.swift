import Inet
import Noise

extension Device {
    /// Takes in one datagram; data is opened in place.
    ///
    /// - Parameters:
    ///   - datagram: all of it.
    ///   - source: where it came from; an authenticated message makes this the peer's endpoint.
    ///   - local: the local address that it came to, which answers go out from; `nil` if that is not known.
    ///   - ecn: the outer header's congestion notification.
    ///   - wallTime: civil time, reported as the time of a handshake.
    /// - Returns: the inner packet's range, or what else became of it.
    public mutating func receive(
        _ datagram: inout MutableRawSpan, from source: SocketEndpoint, to local: IPAddress? = nil, ecn: ECN = .notECT, now: Instant,
        wallTime: WallTime
    ) -> ReceiveResult {
        var result: ReceiveResult =
            switch Message.classify(datagram.bytes) {
            case .data(let receiverIndex, let counter):
                receiveData(
                    &datagram, receiverIndex: receiverIndex, counter: counter, from: source, to: local, ecn: ecn, now: now,
                    wallTime: wallTime)
            case .initiation: queueHandshake(datagram.bytes, from: source, to: local, now: now)
            case .response:
                if let loop = configuration.share.otherLoop(of: datagram.bytes) {
                    .misdirected(to: loop)
                } else {
                    queueHandshake(datagram.bytes, from: source, to: local, now: now)
                }
            case .cookieReply: receiveCookieReply(datagram.bytes, now: now)
            case .invalid(let reason): .dropped(reason)
            }
        if case .dropped(.unknownReceiverIndex) = result, let loop = configuration.share.otherLoop(of: datagram.bytes) {
            result = .misdirected(to: loop)
        }
        switch result {
        case .packet, .queued, .handled: break
        case .misdirected: counters.misdirectedMessages &+= 1
        case .dropped(let reason): drops.count(reason)
        }
        return result
    }

    // MARK: - Data (WG §5.4.6)

    @inline(__always)
    private mutating func receiveData(
        _ datagram: inout MutableRawSpan, receiverIndex: UInt32, counter: UInt64, from source: SocketEndpoint, to local: IPAddress?,
        ecn: ECN, now: Instant, wallTime: WallTime
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
        roam(place, to: source, at: local)
        reschedule(place)
        if isKeepalive {
            counters.keepalivesReceived &+= 1
            return .handled
        }
        // What is authentic need not be well-formed: length and source are the peer's word only.
        let plaintext = DataMessage.headerByteCount..<byteCount - DataMessage.tagByteCount
        guard let inner = IPHeader.routing(of: datagram.bytes.extracting(plaintext)) else { return .dropped(.malformedInnerPacket) }
        guard routes.lookup(inner.source) == place else { return .dropped(.sourceNotAllowed) }
        let innerECN = ECN(of: datagram.bytes.extracting(plaintext))
        guard let ecn = ECN.decapsulated(inner: innerECN, outer: ecn) else { return .dropped(.congestionUnseen) }
        if ecn != innerECN { ecn.write(into: &datagram, at: plaintext.lowerBound) }
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
            counters.sessionsAsResponder &+= 1
            emit(.sessionEstablished(peers[place].id))
            outbox.enqueue(&peers[place])
        }
    }

    /// An authenticated message came from there (WG §6.5).
    @inline(__always)
    mutating func roam(_ place: Int, to source: SocketEndpoint, at local: IPAddress?) {
        if peers[place].localAddress != local { peers[place].localAddress = local }
        guard peers[place].endpoint != source else { return }
        peers[place].endpoint = source
        emit(.endpointChanged(peers[place].id, source))
    }
}
