import Inet

/// A connection in SYN-RECEIVED that came from a listener: what its SYN said, and what we answered. It becomes a
/// `TCPConnection` with the segment that acknowledges our SYN.
struct HalfOpen {
    let local: SocketEndpoint
    let remote: SocketEndpoint
    /// The Window field of the SYN, unscaled.
    let window: UInt16
    /// The MSS option; 0 without one.
    let maximumSegmentSize: UInt16
    /// The window scale option; `noScale` without one.
    let windowScale: UInt8
    let options: Options
    let iss: SequenceNumber
    let irs: SequenceNumber
    var tsRecent: UInt32
    let listener: ListenerID
    /// How often our SYN and ACK has been sent; 0 if that is not known.
    var transmissions: UInt8 = 0
    /// When a suspicious segment was answered last, in units of `challengeInterval`.
    private var challengedAt: UInt16
    /// When our SYN and ACK was sent last.
    var sentAt: Instant

    struct Options: OptionSet {
        let rawValue: UInt8
        static let sackPermitted = Options(rawValue: 1)
        static let timestamps = Options(rawValue: 2)
        /// ECE and CWR: the peer offers ECN (RFC 3168 §6.1.1).
        static let ecn = Options(rawValue: 4)
    }

    init(
        local: SocketEndpoint, remote: SocketEndpoint, syn: TCPHeader, options: TCPOptions, iss: SequenceNumber, listener: ListenerID,
        now: Instant
    ) {
        self.local = local
        self.remote = remote
        window = syn.window
        maximumSegmentSize = options.maximumSegmentSize.map { max($0, 1) } ?? 0
        windowScale = options.windowScale.map { min($0, Self.largestScale) } ?? Self.noScale
        var bits: Options = []
        if options.isSACKPermitted { bits.insert(.sackPermitted) }
        if options.timestamps != nil { bits.insert(.timestamps) }
        if syn.flags.isSuperset(of: [.ece, .cwr]) { bits.insert(.ecn) }
        self.options = bits
        self.iss = iss
        irs = syn.sequence
        tsRecent = options.timestamps?.value ?? 0
        self.listener = listener
        challengedAt = Self.challengeClock(now) &- 1
        sentAt = now
    }

    /// The SYN as it came.
    var syn: TCPHeader {
        TCPHeader(
            sourcePort: remote.port, destinationPort: local.port, sequence: irs, acknowledgment: SequenceNumber(0),
            flags: options.contains(.ecn) ? [.syn, .ece, .cwr] : .syn, window: window)
    }

    /// What its options said.
    var synOptions: TCPOptions {
        var result = TCPOptions()
        result.maximumSegmentSize = maximumSegmentSize == 0 ? nil : maximumSegmentSize
        result.windowScale = windowScale == Self.noScale ? nil : windowScale
        result.isSACKPermitted = options.contains(.sackPermitted)
        if options.contains(.timestamps) { result.timestamps = .init(value: tsRecent, echoReply: 0) }
        return result
    }

    enum Judgment: Equatable {
        /// Our SYN is acknowledged.
        case established
        /// The same SYN again.
        case repeated
        /// The peer gave up.
        case reset
        /// Dropped, with an ACK if there was none just now.
        case suspicious(DropReason)
        /// Dropped, and answered by a reset with the number of its ACK.
        case badAcknowledgment
        case dropped(DropReason)
    }

    /// RFC 9293 §3.10.7.4 for SYN-RECEIVED after a passive open, in its order, with RFC 7323 §5.3 and RFC 5961 §3 and §4: a reset
    /// counts at RCV.NXT only, and another SYN is answered by an ACK, so that a peer which has begun anew resets this one.
    /// - Parameter receiveWindow: the window that our SYN and ACK offers.
    func judge(_ header: TCPHeader, options: TCPOptions, textCount: Int, receiveWindow: Int) -> Judgment {
        let isReset = header.flags.contains(.rst)
        if header.flags.isDisjoint(with: [.rst, .ack, .fin]), header.flags.contains(.syn), header.sequence == irs { return .repeated }
        if self.options.contains(.timestamps), !isReset {
            guard let timestamps = options.timestamps else { return .dropped(.missingTimestamp) }
            if Int32(bitPattern: timestamps.value &- tsRecent) < 0 { return .suspicious(.oldTimestamp) }
        }
        // First: the sequence number.
        let next = irs + 1
        let length = textCount + (header.flags.contains(.syn) ? 1 : 0) + (header.flags.contains(.fin) ? 1 : 0)
        let isAcceptable =
            header.sequence == next
            || (length == 0
                ? header.sequence.lies(from: next, count: receiveWindow + 1)
                : header.sequence.lies(from: next, count: receiveWindow)
                    || (header.sequence + (length - 1)).lies(from: next, count: receiveWindow))
        guard isAcceptable else { return isReset ? .dropped(.badReset) : .suspicious(.outsideWindow) }
        // Second: the RST bit. Fourth: the SYN bit.
        if isReset { return header.sequence == next ? .reset : .suspicious(.challenged) }
        if header.flags.contains(.syn) { return .suspicious(.challenged) }
        // Fifth: the ACK field.
        guard header.flags.contains(.ack) else { return .dropped(.unexpectedSegment) }
        return header.acknowledgment == iss + 1 ? .established : .badAcknowledgment
    }

    /// A bound for each record: one for all would tell an outsider about the others (CVE-2016-5696).
    mutating func mayChallenge(now: Instant) -> Bool {
        let clock = Self.challengeClock(now)
        guard clock != challengedAt else { return false }
        challengedAt = clock
        return true
    }

    private static func challengeClock(_ now: Instant) -> UInt16 {
        UInt16(truncatingIfNeeded: now.nanoseconds / UInt64(challengeInterval.inNanoseconds))
    }

    static let noScale: UInt8 = .max
    /// 14 (RFC 7323 §2.3).
    static let largestScale: UInt8 = 14
    private static let challengeInterval: Duration = .milliseconds(250)
}

/// All half-open connections of the listeners. Bounded for the whole stack, for each listener (which counts its own) and for each
/// remote peer, so that one peer cannot take it all. What finds no room is served by `SYNCookies`.
/// Source: RFC 4987 §3.3 (SYN cache).
struct SYNQueue: ~Copyable {
    private var records = Slab<HalfOpen>()
    private var deadlines = DeadlineQueue()
    /// How many records each peer has.
    private var peers: [IPAddress: Int] = [:]
    private let limit: Int
    private let limitPerListener: Int
    private let limitPerPeer: Int

    init(_ configuration: StackConfiguration) {
        limit = max(1, configuration.maximumHalfOpen)
        limitPerListener = max(1, configuration.maximumHalfOpenPerListener)
        limitPerPeer = max(1, configuration.maximumHalfOpenPerPeer)
    }

    var count: Int { records.count }
    var slotCount: Int { records.slotCount }
    var peerCount: Int { peers.count }
    /// When the first SYN and ACK has to go again, or its record has to go.
    var next: Instant? { deadlines.next }

    subscript(index: Int) -> HalfOpen {
        _read { yield records[index] }
        _modify { yield &records[index] }
    }

    func isOccupied(_ index: Int) -> Bool { records.isOccupied(index) }

    /// - Parameter listenerCount: the records of the listener that is asked.
    func hasRoom(listenerCount: Int, remote: IPAddress) -> Bool {
        count < limit && listenerCount < limitPerListener && peers[remote.peer, default: 0] < limitPerPeer
    }

    /// Whether a bound is half exhausted: what has been repeated twice then has to go.
    private func isCrowded(listenerCount: Int, remote: IPAddress) -> Bool {
        2 * count > limit || 2 * listenerCount > limitPerListener || 2 * peers[remote.peer, default: 0] > limitPerPeer
    }

    /// Adds a record whose SYN and ACK leaves now.
    mutating func insert(_ record: HalfOpen, now: Instant) -> Int {
        peers[record.remote.address.peer, default: 0] += 1
        let index = Int(records.insert(record).index)
        transmitted(index, now: now)
        return index
    }

    mutating func remove(_ index: Int) {
        let peer = records[index].remote.address.peer
        let count = peers[peer, default: 0] - 1
        peers[peer] = count > 0 ? count : nil
        deadlines.remove(index)
        records.remove(index)
    }

    /// One record whose timer has fired; the caller sends it again or removes it.
    mutating func popExpired(now: Instant) -> Int? { deadlines.popExpired(now: now) }

    /// Whether the SYN and ACK of `index` goes once more (RFC 9293 §3.8.3, R2 for SYNs).
    func shallRepeat(_ index: Int, listenerCount: Int) -> Bool {
        let isCrowded = isCrowded(listenerCount: listenerCount, remote: records[index].remote.address)
        return Int(records[index].transmissions) < (isCrowded ? Self.transmissionsWhenCrowded : Self.transmissions)
    }

    /// The SYN and ACK of `index` leaves: 1, 2, 4, 8, 16, 32 s later its timer fires.
    mutating func transmitted(_ index: Int, now: Instant) {
        records[index].transmissions += 1
        records[index].sentAt = now
        deadlines.schedule(index, at: now + Self.initialTimeout * (1 << (Int(records[index].transmissions) - 1)))
    }

    /// A SYN and ACK is sent six times: at 0, 1, 3, 7, 15, 31 s.
    static let transmissions = 6
    /// At 0, 1, 3 s: a flood's remains are gone after 7 s.
    static let transmissionsWhenCrowded = 3
    private static let initialTimeout: Duration = .seconds(1)
}

extension IPAddress {
    /// Who is counted as one where something is shared out: an IPv4 address, or the /64 of an IPv6 address, whose lower half its
    /// owner chooses at will.
    var peer: IPAddress { family == .v4 ? self : masked(to: 64) }
}

extension TCPConnection {
    /// Continues `record`, whose SYN and ACK has been sent: this connection is in SYN-RECEIVED.
    mutating func resume(_ record: HalfOpen, now: Instant) {
        // A SYN that may have been sent more than once measures no round trip.
        synTransmissions = record.transmissions == 0 ? 2 : UInt16(record.transmissions)
        snd.nxt = snd.iss + 1
        acceptSYN(record.syn, options: record.synOptions, now: now)
        pending.remove(.syn)
        lastDataSent = record.sentAt
        unackedSince = record.sentAt
        armRetransmit(now: now)
    }
}
