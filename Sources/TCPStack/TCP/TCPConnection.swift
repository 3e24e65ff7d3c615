import Inet

/// One connection: a state machine of its own without addresses of others, queues or clocks.
/// Segments go in by `receive`, come out by `pollTransmit`; `Stack` looks after it by `settle` after each call.
///
/// Not done here: LISTEN (`Listener`) and TIME-WAIT (`TimeWaitTable`).
struct TCPConnection: ~Copyable {
    let local: SocketEndpoint
    let remote: SocketEndpoint
    /// The listener that it came from, until the application has taken it.
    var listener: ListenerID?
    let isPassive: Bool

    var state: TCPState
    var snd: SendSequence
    /// IRS
    var irs = SequenceNumber(0)
    var rcv: ReceiveWindow
    var sendBuffer: SendBuffer
    var scoreboard = SACKScoreboard()
    var rtt = RTTEstimator()
    var congestion: CongestionController
    var recovery = LossRecovery()
    var pacer = Pacer()
    var pathMTU: PathMTUSearch
    var challenge = ChallengeACK()
    var timers = Timers()
    let limits: Limits

    /// The largest segment to the peer, IP and TCP fixed headers taken off, options not.
    var peerMSS: Int
    /// The largest IP packet of our interface: what the peer is told.
    let interfaceMTU: Int
    var isScalingNegotiated = false
    var isSACKPermitted = false
    var hasTimestamps = false
    /// TS.Recent, and when it was taken.
    var tsRecent: UInt32 = 0
    var tsRecentAt = Instant(nanoseconds: 0)
    let tsOffset: UInt32
    /// Last.ACK.sent
    var lastAcknowledgmentSent = SequenceNumber(0)
    /// The largest text a segment has brought: what the peer's MSS seems to be.
    var largestTextReceived = 536
    /// A duplicate to report first (RFC 2883).
    var duplicateBlock: SequenceRange?

    /// Where the peer's FIN stands, while `earlyFIN` is set.
    var finSequence = SequenceNumber(0)
    /// Where urgent data ends, while `.sendsUrgent` or `.receivesUrgent` is set: SND.UP and RCV.UP.
    var sndUrgent = SequenceNumber(0)
    var rcvUrgent = SequenceNumber(0)
    /// No mark of congestion up to here brings a second reduction (RFC 3168 §6.1.2).
    var congestionMark: SequenceNumber

    /// What the next `pollTransmit` has to do besides data.
    var pending: Pending = []
    var flags: Flags = .acknowledgesEarly
    var events: PendingEvents = []
    var closeReason = CloseReason.finished

    var synTransmissions: UInt16 = 0
    var persistBackoff: UInt8 = 0
    var unansweredProbes: UInt32 = 0
    var keepaliveProbesSent: UInt8 = 0
    /// When the oldest unacknowledged octet was sent first, or the last progress was made.
    var unackedSince = Instant(nanoseconds: 0)
    var lastHeard: Instant
    var lastDataSent = Instant(nanoseconds: 0)
    var openedAt: Instant
    var counters = Counters()
    /// What the stack has counted of this connection's bytes.
    var accountedBytes = 0
    var accountedMemory = 0

    init(
        local: SocketEndpoint, remote: SocketEndpoint, listener: ListenerID?, iss: SequenceNumber, timestampOffset: UInt32, limits: Limits,
        configuration: StackConfiguration, source: TextBlockSource, pathMTU knownPathMTU: Int? = nil, now: Instant
    ) {
        self.local = local
        self.remote = remote
        self.listener = listener
        isPassive = listener != nil
        state = listener == nil ? .synSent : .synReceived
        snd = SendSequence(iss: iss)
        rcv = ReceiveWindow(initial: configuration.receiveBufferInitial, maximum: configuration.receiveBufferMaximum, source: source)
        sendBuffer = SendBuffer(limit: limits.sendBufferInitial)
        interfaceMTU = configuration.mtu
        pathMTU = PathMTUSearch(whole: configuration.mtu, known: knownPathMTU)
        congestionMark = iss
        let offered = configuration.mtu - SegmentWriter.ipHeaderLength(local.address.family) - TCPHeader.minimumLength
        peerMSS = min(offered, Self.defaultMSS(local.address.family))
        congestion = CongestionController(configuration.congestion, mss: peerMSS)
        self.limits = limits
        tsOffset = timestampOffset
        lastHeard = now
        openedAt = now
        pending = .syn
        timers.state = now.after(limits.connectTimeout)
        if limits.offersECN { flags.insert(.wantsECN) }
    }

    /// RFC 9293 §3.7.1: what holds when the peer names no MSS.
    static func defaultMSS(_ family: IPAddress.Family) -> Int { family == .v4 ? 536 : 1220 }

    /// Bytes of text in one full segment with the options that every segment bears.
    var effectiveMSS: Int { max(Self.smallestText, segmentRoom - (hasTimestamps ? 12 : 0)) }

    /// Bytes of options and text in one full segment.
    var segmentRoom: Int {
        min(peerMSS, pathMTU.mtu - headerLength)
    }

    /// Bytes of the fixed IP and TCP headers.
    var headerLength: Int { SegmentWriter.ipHeaderLength(local.address.family) + TCPHeader.minimumLength }

    /// SND.NXT - SND.UNA
    var flightSize: Int { snd.una.distance(to: snd.nxt) }

    /// Our FIN has been sent and acknowledged.
    var isFINAcknowledged: Bool { flags.contains(.finSent) && snd.una == snd.nxt }

    /// Bytes of text sent and unacknowledged.
    var sentText: Int { flightSize - (flags.contains(.finSent) && snd.una != snd.nxt ? 1 : 0) }

    var unsentText: Int { max(0, sendBuffer.count - max(0, sentText)) }

    /// The smallest text we put in a segment, whatever MSS the peer names (an MSS of 1 would be an attack on us).
    static let smallestText = 16
    /// The smallest MSS that we believe.
    static let smallestMSS = 48
}

extension TCPConnection {
    /// The send sequence variables of RFC 9293 §3.3.1. `wnd` is in bytes, scaled.
    struct SendSequence {
        let iss: SequenceNumber
        var una: SequenceNumber
        var nxt: SequenceNumber
        var wnd = 0
        var wl1 = SequenceNumber(0)
        var wl2: SequenceNumber
        /// The largest window that the peer has offered (RFC 9293 §3.8.6.2.1, RFC 5961 §5.2: MAX.SND.WND).
        var largestWnd = 0
        /// The peer's window scale shift.
        var scale: UInt8 = 0

        init(iss: SequenceNumber) {
            self.iss = iss
            una = iss
            nxt = iss
            wl2 = iss
        }
    }

    /// What stays as it was given. Times in milliseconds, since a `Duration` takes four times the room.
    struct Limits {
        private let connectMilliseconds: UInt32
        private let userMilliseconds: UInt32
        /// 0 is off.
        private let keepaliveMilliseconds: UInt32
        private let finWait2Milliseconds: UInt32
        private let delayedMilliseconds: UInt16
        private let idleMilliseconds: UInt16
        let sendBufferInitial: Int
        let sendBufferMaximum: Int
        let keepaliveProbes: UInt8
        let hopLimit: UInt8
        let offersECN: Bool
        let coalescesSmallWrites: Bool

        init(_ configuration: StackConfiguration, _ options: ConnectionOptions) {
            connectMilliseconds = Self.milliseconds(options.connectTimeout ?? configuration.synTimeout)
            userMilliseconds = Self.milliseconds(options.userTimeout ?? configuration.userTimeout)
            keepaliveMilliseconds = (options.keepalive ?? configuration.keepalive).map { max(1, Self.milliseconds($0)) } ?? 0
            finWait2Milliseconds = Self.milliseconds(configuration.finWait2Timeout)
            delayedMilliseconds = UInt16(clamping: min(Self.milliseconds(configuration.delayedAcknowledgment), 500))
            idleMilliseconds = UInt16(clamping: Self.milliseconds(configuration.bufferIdleTime))
            sendBufferInitial = min(configuration.sendBufferInitial, configuration.sendBufferMaximum)
            sendBufferMaximum = configuration.sendBufferMaximum
            keepaliveProbes = UInt8(clamping: configuration.keepaliveProbes)
            hopLimit = max(1, configuration.hopLimit)
            offersECN = configuration.ecn
            coalescesSmallWrites = options.coalescesSmallWrites
        }

        var connectTimeout: Interval { .milliseconds(Int(connectMilliseconds)) }
        var userTimeout: Interval { .milliseconds(Int(userMilliseconds)) }
        var keepalive: Interval? { keepaliveMilliseconds == 0 ? nil : .milliseconds(Int(keepaliveMilliseconds)) }
        var finWait2: Interval { .milliseconds(Int(finWait2Milliseconds)) }
        var delayedAcknowledgment: Interval { .milliseconds(Int(delayedMilliseconds)) }
        var bufferIdleTime: Interval { .milliseconds(Int(idleMilliseconds)) }

        private static func milliseconds(_ duration: Duration) -> UInt32 { UInt32(clamping: duration.inNanoseconds / 1_000_000) }
    }

    /// What is only counted.
    struct Counters {
        /// Bytes of text, each once.
        var bytesSent: UInt64 = 0
        /// Bytes of text taken in order.
        var bytesReceived: UInt64 = 0
        var retransmittedSegments: UInt32 = 0
        var timeouts: UInt32 = 0
    }

    /// Each timer's moment; `.distantFuture` is off.
    struct Timers {
        /// What `retransmit` is armed for: one timer, as in RFC 8985 §8.
        enum Purpose: UInt8 {
            case timeout
            case lossProbe
            case reordering
        }

        var retransmit = Instant.distantFuture
        var purpose = Purpose.timeout
        var persist = Instant.distantFuture
        var delayedAcknowledgment = Instant.distantFuture
        var keepalive = Instant.distantFuture
        /// Connecting, or FIN-WAIT-2 of a closed application.
        var state = Instant.distantFuture
        var trim = Instant.distantFuture
        var pacing = Instant.distantFuture

        var earliest: Instant {
            min(min(min(retransmit, persist), min(delayedAcknowledgment, keepalive)), min(min(state, pacing), trim))
        }
    }

    struct Pending: OptionSet {
        let rawValue: UInt8
        /// A SYN, or SYN and ACK.
        static let syn = Pending(rawValue: 1)
        /// An ACK that may not wait.
        static let acknowledgment = Pending(rawValue: 2)
        static let windowProbe = Pending(rawValue: 4)
        static let keepaliveProbe = Pending(rawValue: 8)
        /// Send what the window allows, however little (RFC 9293 §3.8.6.2.1, rule 4).
        static let smallSegment = Pending(rawValue: 16)
        /// The first lost segment leaves whatever cwnd says (RFC 6675 §5, step 4.3).
        static let forcedRetransmission = Pending(rawValue: 32)
        /// A tail loss probe (RFC 8985 §7.3).
        static let lossProbe = Pending(rawValue: 64)
    }

    struct Flags: OptionSet {
        let rawValue: UInt32
        static let finQueued = Flags(rawValue: 1)
        static let finSent = Flags(rawValue: 2)
        /// `close` has been called: nobody will read.
        static let applicationClosed = Flags(rawValue: 4)
        /// A `write` came short.
        static let wantsWritable = Flags(rawValue: 8)
        /// The peer's FIN has been taken.
        static let inputClosed = Flags(rawValue: 16)
        /// Something may be ready for `pollTransmit`.
        static let needsPoll = Flags(rawValue: 64)
        static let isQueuedForTransmit = Flags(rawValue: 128)
        static let isQueuedForEvents = Flags(rawValue: 256)
        /// In the flow table.
        static let isRegistered = Flags(rawValue: 512)
        /// A reset has to be sent by the stack as the connection's last word.
        static let needsReset = Flags(rawValue: 1024)
        static let closedAnnounced = Flags(rawValue: 2048)
        /// The application knows the ID.
        static let isKnown = Flags(rawValue: 4096)
        /// The last transmission was held back by cwnd.
        static let isCwndLimited = Flags(rawValue: 8192)
        /// An ICMP error has come; it names the reason if the connection times out.
        static let hasSoftError = Flags(rawValue: 16384)
        /// The peer's FIN has come; bytes before it are missing.
        static let earlyFIN = Flags(rawValue: 32768)
        /// Counted in its listener's SYN queue.
        static let isHalfOpen = Flags(rawValue: 65536)
        /// Counted in its listener's accept queue.
        static let awaitsAccept = Flags(rawValue: 131_072)
        /// We offer ECN, or the peer has offered it to us.
        static let wantsECN = Flags(rawValue: 1 << 18)
        /// Both sides understand ECN.
        static let hasECN = Flags(rawValue: 1 << 19)
        /// A packet was marked: ECE goes with every segment until the peer says CWR.
        static let echoesCongestion = Flags(rawValue: 1 << 20)
        /// The window was reduced for a mark: the next new data says CWR.
        static let reducedWindow = Flags(rawValue: 1 << 21)
        static let sendsUrgent = Flags(rawValue: 1 << 22)
        static let receivesUrgent = Flags(rawValue: 1 << 23)
        /// A packet of the handshake was held back on its way out: no measurement.
        static let hasSpoiltSample = Flags(rawValue: 1 << 24)
        /// Small segments are acknowledged after `shortDelay`: the peer may wait for that (Nagle's algorithm).
        static let acknowledgesEarly = Flags(rawValue: 1 << 26)
        /// Such an ACK has left, and nothing has come since.
        static let hasAcknowledgedEarly = Flags(rawValue: 1 << 27)
        /// What came last is smaller than a full segment and ends a write.
        static let hasSmallSegment = Flags(rawValue: 1 << 28)
        /// A reset follows as soon as the peer has all that was written.
        static let resetsOnceAcknowledged = Flags(rawValue: 1 << 29)
        /// The path's MTU has changed since the stack looked last.
        static let hasNewPathMTU = Flags(rawValue: 1 << 25)
    }

    /// Bits that wait for `pollEvent`, in the order in which they are given.
    struct PendingEvents: OptionSet {
        let rawValue: UInt8
        static let urgent = PendingEvents(rawValue: 32)
        static let opened = PendingEvents(rawValue: 1)
        static let readable = PendingEvents(rawValue: 2)
        static let inputClosed = PendingEvents(rawValue: 4)
        static let writable = PendingEvents(rawValue: 8)
        static let inputReset = PendingEvents(rawValue: 64)
        static let closed = PendingEvents(rawValue: 16)
    }
}

/// What `TCPConnection.receive` tells the stack.
enum SegmentOutcome: Equatable {
    case taken
    case dropped(DropReason)
    /// Dropped, and answered by a reset with this sequence number and no ACK.
    case reset(SequenceNumber)
}
