import Inet

/// How often SYN cookies had to be used.
public struct SYNCounters: Sendable, Equatable {
    /// SYNs that found a bound of the SYN queue reached and were answered by a cookie.
    public internal(set) var synCookiesSent: UInt64 = 0
    /// Connections that such a cookie opened.
    public internal(set) var synCookiesAccepted: UInt64 = 0
    /// ACKs to a listener that expects cookies, with none that is good.
    public internal(set) var synCookiesRejected: UInt64 = 0

    public init() {}

    mutating func add(_ other: SYNCounters) {
        synCookiesSent &+= other.synCookiesSent
        synCookiesAccepted &+= other.synCookiesAccepted
        synCookiesRejected &+= other.synCookiesRejected
    }
}

/// Passive opens: LISTEN and SYN-RECEIVED, until a `TCPConnection` takes over.
///
/// ```
///  SYN ──► room in SYNQueue? ──yes──► record, SYN+ACK, timer ──ACK──► TCPConnection in SYN-RECEIVED, fed with that ACK
///                   └──no──► cookie in SYN+ACK, no memory ──ACK with a good cookie──► the same
/// ```
/// Cookies are sent for as long as a bound is reached and no longer; they are looked for on a listener that has sent one within
/// their lifetime. A connection that both sides open at once is not here: it begins in SYN-SENT.
///
/// Source: RFC 9293 §3.10.7.2, §3.10.7.4; RFC 4987.
extension Stack {
    mutating func receiveSYN(
        _ header: TCPHeader, options: TCPOptions, local: SocketEndpoint, remote: SocketEndpoint, listener: Slab<Listener>.Handle,
        hash: UInt64, now: Instant
    ) {
        let slot = Int(listener.index)
        guard listeners[slot].hasRoom else { return drops.count(.synQueueFull) }
        guard connections.count < configuration.maximumConnections else { return drops.count(.tooManyConnections) }
        guard synQueue.hasRoom(listenerCount: listeners[slot].halfOpen, remote: remote.address) else {
            return sendCookie(header, options: options, local: local, remote: remote, slot: slot, now: now)
        }
        let id = ListenerID(index: listener.index, generation: listener.generation)
        let sequence = initialSequence.generate(local: local, remote: remote, now: now)
        let record = HalfOpen(
            local: local, remote: remote, syn: answerable(header), options: options, iss: sequence.iss, listener: id, now: now)
        let index = synQueue.insert(record, now: now)
        listeners[slot].halfOpen += 1
        tally.passiveOpens &+= 1
        flows.insert(.halfOpen(index), hash: hash)
        sendSYNAndACK(index, now: now)
    }

    mutating func receive(
        _ header: TCPHeader, options: TCPOptions, text: RawSpan, forHalfOpen index: Int, hash: UInt64, now: Instant
    ) {
        let judgment = synQueue[index].judge(header, options: options, textCount: text.byteCount, receiveWindow: synWindow)
        switch judgment {
        case .repeated:
            // RFC 7323 §4.3: what is echoed is of the newest SYN.
            if synQueue[index].options.contains(.timestamps), let timestamps = options.timestamps,
                Int32(bitPattern: timestamps.value &- synQueue[index].tsRecent) > 0
            {
                synQueue[index].tsRecent = timestamps.value
            }
            sendSYNAndACK(index, now: now)
        case .reset: removeHalfOpen(index)
        case .dropped(let reason): drops.count(reason)
        case .suspicious(let reason):
            drops.count(reason)
            if synQueue[index].mayChallenge(now: now) { sendChallenge(index, now: now) }
        case .badAcknowledgment:
            drops.count(.badAcknowledgment)
            reply(
                from: synQueue[index].local, to: synQueue[index].remote, sequence: header.acknowledgment,
                acknowledgment: SequenceNumber(0), flags: .rst, now: now)
        case .established:
            let record = synQueue[index]
            // The SYN and ACK goes again later; the peer repeats its ACK or its data.
            guard let slot = listenerIndex(record.listener), mayOpen(slot) else { return }
            removeHalfOpen(index)
            open(record, header, options: options, text: text, slot: slot, hash: hash, now: now)
        }
    }

    /// Looks for a cookie in a segment that belongs to no connection.
    /// - Returns: `false` if it has to be answered as a stray one.
    mutating func receiveCookie(
        _ header: TCPHeader, options: TCPOptions, text: RawSpan, local: SocketEndpoint, remote: SocketEndpoint, hash: UInt64, now: Instant
    ) -> Bool {
        guard header.flags.contains(.ack), header.flags.isDisjoint(with: [.syn, .rst]), remote.port != 0,
            let listener = listener(for: local)
        else { return false }
        let slot = Int(listener.index)
        guard now < listeners[slot].cookiesUntil else { return false }
        let id = ListenerID(index: listener.index, generation: listener.generation)
        guard let record = halfOpen(fromCookieIn: header, options: options, local: local, remote: remote, listener: id, now: now) else {
            synCounters.synCookiesRejected &+= 1
            // Text that has overtaken the ACK, or the text before it, does not tell the peer's ISN: a reset would end a connection
            // that the next segment opens.
            guard text.byteCount > 0 else { return false }
            drops.count(.noConnection)
            return true
        }
        guard mayOpen(slot) else { return true }
        synCounters.synCookiesAccepted &+= 1
        tally.passiveOpens &+= 1
        open(record, header, options: options, text: text, slot: slot, hash: hash, now: now)
        return true
    }

    /// The timer of a record has fired.
    mutating func halfOpenTimedOut(_ index: Int, now: Instant) {
        guard let slot = listenerIndex(synQueue[index].listener),
            synQueue.shallRepeat(index, listenerCount: listeners[slot].halfOpen)
        else { return removeHalfOpen(index) }
        synQueue.transmitted(index, now: now)
        sendSYNAndACK(index, now: now)
    }

    /// The listener is closed: the peer is told.
    mutating func resetHalfOpen(_ index: Int, now: Instant) {
        let record = synQueue[index]
        removeHalfOpen(index)
        reply(
            from: record.local, to: record.remote, sequence: record.iss + 1, acknowledgment: record.irs + 1, flags: [.rst, .ack], now: now)
    }

    mutating func removeHalfOpen(_ index: Int) {
        let record = synQueue[index]
        flows.remove(.halfOpen(index), hash: flowHash.hash(local: record.local, remote: record.remote))
        synQueue.remove(index)
        if let slot = listenerIndex(record.listener) { listeners[slot].halfOpen -= 1 }
    }

    // MARK: opening

    /// Whether one more connection may be established; counts it if not.
    private mutating func mayOpen(_ slot: Int) -> Bool {
        guard listeners[slot].hasRoom else {
            drops.count(.synQueueFull)
            return false
        }
        guard connections.count < configuration.maximumConnections else {
            drops.count(.tooManyConnections)
            return false
        }
        return true
    }

    /// Makes the connection and feeds it with the segment that acknowledges our SYN.
    private mutating func open(
        _ record: HalfOpen, _ header: TCPHeader, options: TCPOptions, text: RawSpan, slot: Int, hash: UInt64, now: Instant
    ) {
        let sequence = initialSequence.generate(local: record.local, remote: record.remote, now: now)
        let connection = TCPConnection(
            local: record.local, remote: record.remote, listener: record.listener, iss: record.iss,
            timestampOffset: sequence.timestampOffset, limits: TCPConnection.Limits(configuration, listeners[slot].options),
            configuration: configuration, source: textSource, pathMTU: pathMTUs.mtu(to: record.remote.address, now: now), now: now)
        let index = Int(connections.insert(connection).index)
        flows.insert(.connection(index), hash: hash)
        connections[index].flags.insert([.isRegistered, .isHalfOpen])
        listeners[slot].halfOpen += 1
        connections[index].resume(record, now: now)
        receive(header, options: options, text: text, ecn: .notECT, for: index, now: now)
    }

    // MARK: cookies

    private mutating func sendCookie(
        _ header: TCPHeader, options: TCPOptions, local: SocketEndpoint, remote: SocketEndpoint, slot: Int, now: Instant
    ) {
        let named = options.maximumSegmentSize.map(Int.init) ?? TCPConnection.defaultMSS(local.address.family)
        let carried =
            options.timestamps == nil
            ? SYNCookies.Options.none
            : SYNCookies.Options(
                windowScale: options.windowScale, isSACKPermitted: options.isSACKPermitted,
                isECNPermitted: answerable(header).flags.contains(.ece))
        let subject = SYNCookies.Subject(
            local: local, remote: remote, irs: header.sequence, hasTimestamps: options.timestamps != nil, options: carried)
        let offered = offeredMSS(local.address.family)
        let cookie = synCookies.make(subject, mssIndex: SYNCookies.mssIndex(named, offered: offered), now: now)
        var answer = synAndACKOptions(
            local.address.family, isScaling: carried.windowScale != nil, isSACKPermitted: carried.isSACKPermitted)
        if let timestamps = options.timestamps {
            let offset = initialSequence.generate(local: local, remote: remote, now: now).timestampOffset
            answer.timestamps = .init(
                value: carried.timestamp(notAfter: Self.timestampClock(now) &+ offset), echoReply: timestamps.value)
        }
        listeners[slot].cookiesUntil = now + SYNCookies.lifetime
        synCounters.synCookiesSent &+= 1
        queueReply(
            from: local, to: remote, sequence: cookie, acknowledgment: header.sequence + 1,
            flags: Self.synAndACK(acceptsECN: carried.isECNPermitted), window: UInt16(clamping: synWindow), options: answer)
    }

    private mutating func halfOpen(
        fromCookieIn header: TCPHeader, options: TCPOptions, local: SocketEndpoint, remote: SocketEndpoint, listener: ListenerID,
        now: Instant
    ) -> HalfOpen? {
        var carried = SYNCookies.Options.none
        if let timestamps = options.timestamps {
            let offset = initialSequence.generate(local: local, remote: remote, now: now).timestampOffset
            // A guess at the MAC has to guess our clock too.
            let age = Self.timestampClock(now) &+ offset &- timestamps.echoReply
            guard age <= Self.oldestCookieEcho else { return nil }
            carried = SYNCookies.Options(echoed: timestamps.echoReply)
        }
        let irs = header.sequence - 1
        let cookie = header.acknowledgment - 1
        let subject = SYNCookies.Subject(
            local: local, remote: remote, irs: irs, hasTimestamps: options.timestamps != nil, options: carried)
        guard let mssIndex = synCookies.check(cookie, subject, now: now) else { return nil }
        var syn = header
        syn.sequence = irs
        syn.flags = carried.isECNPermitted ? [.syn, .ece, .cwr] : .syn
        var said = TCPOptions()
        said.maximumSegmentSize = UInt16(clamping: SYNCookies.mss(index: mssIndex, offered: offeredMSS(local.address.family)))
        said.windowScale = carried.windowScale
        said.isSACKPermitted = carried.isSACKPermitted
        said.timestamps = options.timestamps
        return HalfOpen(local: local, remote: remote, syn: syn, options: said, iss: cookie, listener: listener, now: now)
    }

    // MARK: segments

    private mutating func sendSYNAndACK(_ index: Int, now: Instant) {
        let record = synQueue[index]
        var options = synAndACKOptions(
            record.local.address.family, isScaling: record.windowScale != HalfOpen.noScale,
            isSACKPermitted: record.options.contains(.sackPermitted))
        options.timestamps = timestamps(of: record, now: now)
        queueReply(
            from: record.local, to: record.remote, sequence: record.iss, acknowledgment: record.irs + 1,
            flags: Self.synAndACK(acceptsECN: record.options.contains(.ecn)), window: UInt16(clamping: synWindow), options: options)
    }

    private mutating func sendChallenge(_ index: Int, now: Instant) {
        let record = synQueue[index]
        var options = TCPOptions()
        options.timestamps = timestamps(of: record, now: now)
        let scale = record.windowScale == HalfOpen.noScale ? 0 : Int(TCPConnection.windowScale(for: configuration.receiveBufferMaximum))
        queueReply(
            from: record.local, to: record.remote, sequence: record.iss + 1, acknowledgment: record.irs + 1, flags: .ack,
            window: UInt16(clamping: synWindow >> scale), options: options)
    }

    private func synAndACKOptions(_ family: IPAddress.Family, isScaling: Bool, isSACKPermitted: Bool) -> TCPOptions {
        var options = TCPOptions()
        options.maximumSegmentSize = UInt16(clamping: offeredMSS(family))
        if isScaling { options.windowScale = TCPConnection.windowScale(for: configuration.receiveBufferMaximum) }
        options.isSACKPermitted = isSACKPermitted
        return options
    }

    private func timestamps(of record: HalfOpen, now: Instant) -> TCPOptions.Timestamps? {
        guard record.options.contains(.timestamps) else { return nil }
        let offset = initialSequence.generate(local: record.local, remote: record.remote, now: now).timestampOffset
        return .init(value: Self.timestampClock(now) &+ offset, echoReply: record.tsRecent)
    }

    /// RFC 3168 §6.1.1: ECE without CWR accepts.
    private static func synAndACK(acceptsECN: Bool) -> TCPFlags { acceptsECN ? [.syn, .ack, .ece] : [.syn, .ack] }

    /// The SYN with only those flags that we answer.
    private func answerable(_ syn: TCPHeader) -> TCPHeader {
        var syn = syn
        if !configuration.ecn { syn.flags.subtract([.ece, .cwr]) }
        if !syn.flags.isSuperset(of: [.ece, .cwr]) { syn.flags.subtract([.ece, .cwr]) }
        return syn
    }

    /// RFC 9293 §3.7.1: the MTU less the fixed headers.
    private func offeredMSS(_ family: IPAddress.Family) -> Int {
        configuration.mtu - SegmentWriter.ipHeaderLength(family) - TCPHeader.minimumLength
    }

    /// The Window field of our SYN: never scaled (RFC 7323 §2.2).
    private var synWindow: Int { min(configuration.receiveBufferInitial, configuration.receiveBufferMaximum, 65_535) }

    private static func timestampClock(_ now: Instant) -> UInt32 { UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000) }

    /// Milliseconds: a cookie's life, and what its low bits may take off the clock.
    private static let oldestCookieEcho = UInt32(SYNCookies.lifetime.inNanoseconds / 1_000_000) + 64
}
