/// What a stack is built with. Bytes are `Int`; every bound has its name here.
public struct StackConfiguration: Sendable {
    /// The largest IP packet that leaves, in bytes: 576 (IPv4 only), 1,280 to 65,535. Sets the MSS that we offer.
    public var mtu = 1420
    /// The receive window of a fresh connection.
    public var receiveBufferInitial = 256 * 1024
    /// What the receive window may grow to. Sets the window scale.
    public var receiveBufferMaximum = 4 * 1024 * 1024
    /// The most bytes that wait to be sent or acknowledged on one connection.
    public var sendBufferMaximum = 1024 * 1024
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

    public init() {}
}

/// What a single connection wants otherwise than its stack.
public struct ConnectionOptions: Sendable {
    /// How long a connect may take; `nil` is the stack's `synTimeout`.
    public var connectTimeout: Duration?
    /// `nil` is the stack's `userTimeout`.
    public var userTimeout: Duration?
    /// Silence after which a probe is sent; `nil` is the stack's `keepalive`.
    public var keepalive: Duration?

    public init(connectTimeout: Duration? = nil, userTimeout: Duration? = nil, keepalive: Duration? = nil) {
        self.connectTimeout = connectTimeout
        self.userTimeout = userTimeout
        self.keepalive = keepalive
    }
}
