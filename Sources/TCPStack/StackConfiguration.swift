/// What a stack is built with. Bytes are `Int`; every bound has its name here.
public struct StackConfiguration: Sendable {
    /// The largest IP packet that leaves, in bytes: 576 (IPv4 only), 1,280 to 65,535. Sets the MSS that we offer.
    public var mtu = 1420
    /// The receive window of a fresh connection.
    public var receiveBufferInitial = 128 * 1024
    /// What the receive window may grow to, with what the application consumes. Sets the window scale.
    public var receiveBufferMaximum = 65_535 << 8
    /// The most bytes that wait to be sent or acknowledged on a fresh connection.
    public var sendBufferInitial = 256 * 1024
    /// What that may grow to, with the congestion window.
    public var sendBufferMaximum = 16 * 1024 * 1024
    /// What the buffers of all connections may hold, in bytes of memory. At three quarters of it windows stop growing; above it the
    /// largest connection of the remote address that holds most is reset.
    public var memoryLimit = 512 * 1024 * 1024
    /// Connections of all kinds, without those that a peer has begun and not completed.
    public var maximumConnections = 65_536
    /// Connections of all listeners in SYN-RECEIVED. Beyond it and the next two bounds, SYN cookies are sent.
    public var maximumHalfOpen = 4096
    /// Connections of one listener in SYN-RECEIVED.
    public var maximumHalfOpenPerListener = 1024
    /// Connections in SYN-RECEIVED from one peer: one IPv4 address, or one IPv6 /64.
    public var maximumHalfOpenPerPeer = 512
    /// TIME-WAIT records; the oldest gives way.
    public var maximumTimeWait = 65_536
    /// Bytes of replies without a connection (resets, ICMP) that wait to leave.
    public var maximumReplyBytes = 256 * 1024
    /// UDP sockets, those included that are closed and have datagrams to send.
    public var maximumUDPSockets = 4096
    /// Bytes of data that wait to be received at one UDP socket; the newest datagram is dropped.
    public var udpReceiveBufferMaximum = 256 * 1024
    /// The same as a number of datagrams.
    public var udpReceiveDatagramsMaximum = 1024
    /// Bytes of data that wait to leave one UDP socket; beyond that `sendUDP` takes nothing.
    public var udpSendBufferMaximum = 256 * 1024
    /// The same as a number of datagrams.
    public var udpSendDatagramsMaximum = 1024
    /// Unacknowledged for so long, a connection dies (RFC 9293 §3.8.3, RFC 5482).
    public var userTimeout: Duration = .seconds(100)
    /// How long a SYN is repeated (RFC 9293 MUST-23: at least three minutes).
    public var synTimeout: Duration = .seconds(180)
    /// Twice the maximum segment lifetime.
    public var timeWait: Duration = .seconds(60)
    /// FIN-WAIT-2 of a connection that the application has closed both ways.
    public var finWait2Timeout: Duration = .seconds(60)
    /// Silence after which a probe is sent; `nil` is off (RFC 9293 MUST-25).
    public var keepalive: Duration?
    /// Unanswered keepalive probes after which a connection dies.
    public var keepaliveProbes = 4
    /// The longest that an ACK waits for company: at most 500 ms (RFC 9293 MUST-40).
    public var delayedAcknowledgment: Duration = .milliseconds(40)
    /// How long an unused buffer keeps its memory.
    public var bufferIdleTime: Duration = .seconds(1)
    public var congestion: CongestionAlgorithm = .cubic
    /// Whether congestion is told by marks where the other side understands them (RFC 3168).
    public var ecn = true
    /// TTL and Hop Limit of what leaves: 1 to 255 (RFC 9293 MUST-49).
    public var hopLimit: UInt8 = 64
    /// How long it is remembered that the path to an address takes smaller packets only (RFC 8201 §4).
    public var pathMTULifetime: Duration = .seconds(600)

    public init() {}

    /// What RFC 9293 MUST-28 wants of `keepalive` where it is on and nothing else is named: two hours.
    public static let standardKeepalive: Duration = .seconds(7200)
}

/// What a single connection wants otherwise than its stack.
public struct ConnectionOptions: Sendable {
    /// How long a connect may take; `nil` is the stack's `synTimeout`.
    public var connectTimeout: Duration?
    /// `nil` is the stack's `userTimeout`.
    public var userTimeout: Duration?
    /// Silence after which a probe is sent; `nil` is the stack's `keepalive`.
    public var keepalive: Duration?
    /// Small segments wait for the ACK of what is in flight (Nagle's algorithm, RFC 9293 §3.7.4). Off: a request shall not wait.
    public var coalescesSmallWrites: Bool

    public init(
        connectTimeout: Duration? = nil, userTimeout: Duration? = nil, keepalive: Duration? = nil, coalescesSmallWrites: Bool = false
    ) {
        self.connectTimeout = connectTimeout
        self.userTimeout = userTimeout
        self.keepalive = keepalive
        self.coalescesSmallWrites = coalescesSmallWrites
    }
}
