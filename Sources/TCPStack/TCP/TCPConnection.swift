import Inet

/// One connection: a state machine of its own without addresses of others, queues or clocks.
/// Segments go in by `receive`, come out by `pollTransmit`; `Stack` looks after it by `settle` after each call.
///
/// Not done here: LISTEN (`Listener`), TIME-WAIT (`TimeWaitTable`), urgent data, Nagle's algorithm (off for good).
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
    var challenge = ChallengeACK()
    var timers = Timers()
    let limits: Limits

    /// The largest segment to the peer, IP and TCP fixed headers taken off, options not.
    var peerMSS: Int
    /// The largest IP packet that this path takes.
    var pathMTU: Int
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

    /// What the next `pollTransmit` has to do besides data.
    var pending: Pending = []
    var flags: Flags = []
    var events: PendingEvents = []
    var closeReason = CloseReason.finished

    var synTransmissions = 0
    var persistBackoff = 0
    var unansweredProbes = 0
    var keepaliveProbesSent = 0
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
        configuration: StackConfiguration, now: Instant
    ) {
        self.local = local
        self.remote = remote
        self.listener = listener
        isPassive = listener != nil
        state = listener == nil ? .synSent : .synReceived
        snd = SendSequence(iss: iss)
        rcv = ReceiveWindow(initial: configuration.receiveBufferInitial, maximum: configuration.receiveBufferMaximum)
        sendBuffer = SendBuffer(limit: configuration.sendBufferMaximum)
        pathMTU = configuration.mtu
        let offered = configuration.mtu - SegmentWriter.ipHeaderLength(local.address.family) - TCPHeader.minimumLength
        peerMSS = min(offered, Self.defaultMSS(local.address.family))
        congestion = CongestionController(configuration.congestion, mss: peerMSS)
        self.limits = limits
        tsOffset = timestampOffset
        lastHeard = now
        openedAt = now
        pending = .syn
        timers.connect = now + limits.connectTimeout
    }

    /// RFC 9293 §3.7.1: what holds when the peer names no MSS.
    static func defaultMSS(_ family: IPAddress.Family) -> Int { family == .v4 ? 536 : 1220 }

    /// Bytes of text in one full segment with the options that every segment bears.
    var effectiveMSS: Int { max(Self.smallestText, segmentRoom - (hasTimestamps ? 12 : 0)) }

    /// Bytes of options and text in one full segment.
    var segmentRoom: Int {
        min(peerMSS, pathMTU - SegmentWriter.ipHeaderLength(local.address.family) - TCPHeader.minimumLength)
    }

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

    struct Limits {
        var connectTimeout: Duration
        var userTimeout: Duration
        var keepalive: Duration?
        var keepaliveProbes: Int
        var finWait2: Duration
        var delayedAcknowledgment: Duration
        var bufferIdleTime: Duration

        init(_ configuration: StackConfiguration, _ options: ConnectionOptions) {
            connectTimeout = options.connectTimeout ?? configuration.synTimeout
            userTimeout = options.userTimeout ?? configuration.userTimeout
            keepalive = options.keepalive ?? configuration.keepalive
            keepaliveProbes = configuration.keepaliveProbes
            finWait2 = configuration.finWait2Timeout
            delayedAcknowledgment = min(configuration.delayedAcknowledgment, .milliseconds(500))
            bufferIdleTime = configuration.bufferIdleTime
        }
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
        var retransmit = Instant.distantFuture
        var persist = Instant.distantFuture
        var delayedAcknowledgment = Instant.distantFuture
        var keepalive = Instant.distantFuture
        var finWait2 = Instant.distantFuture
        var connect = Instant.distantFuture
        var trim = Instant.distantFuture

        var earliest: Instant {
            min(min(min(retransmit, persist), min(delayedAcknowledgment, keepalive)), min(min(finWait2, connect), trim))
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
    }

    /// Bits that wait for `pollEvent`, in the order in which they are given.
    struct PendingEvents: OptionSet {
        let rawValue: UInt8
        static let opened = PendingEvents(rawValue: 1)
        static let readable = PendingEvents(rawValue: 2)
        static let inputClosed = PendingEvents(rawValue: 4)
        static let writable = PendingEvents(rawValue: 8)
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
