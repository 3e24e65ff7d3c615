import NIOCore

/// Every limit of the HTTP side. There is none on the length of a body or of a response's life.
package struct ProxyLimits: Sendable, Equatable {
    /// From the first byte of a request head (or the accepted connection) to its last.
    package var header: TimeAmount = .seconds(10)
    /// Without progress of a body, in either direction.
    package var bodyIdle: TimeAmount = .seconds(60)
    /// Bytes a second that the body of a request has to come with on average, reckoned from its first byte; 0 is off. Time in which the
    /// upstream does not take what is there does not count.
    package var minimumBodyRate = 240
    /// So long a body may be slower than ``minimumBodyRate``.
    package var bodyRateGrace: TimeAmount = .seconds(20)
    package var connect: TimeAmount = .seconds(3)
    /// From the end of the request to the head of the response.
    package var responseHead: TimeAmount = .seconds(60)
    /// A client's connection between requests.
    package var keepAliveIdle: TimeAmount = .seconds(75)
    /// A pooled upstream connection between requests.
    package var poolIdle: TimeAmount = .seconds(75)
    /// How long a closing connection may still send what is thrown away, so that a reset does not overtake the answer.
    package var linger: TimeAmount = .seconds(2)
    /// WebSocket without a byte in either direction; nil is for ever.
    package var upgradedIdle: TimeAmount?
    /// Resolution of all of the above: they end up to this much late.
    package var clockInterval: TimeAmount = .milliseconds(500)
    /// Bytes of a request line.
    package var requestLineSize = 16 * 1024
    /// Bytes of one header field, name and value apart.
    package var headerFieldSize = 16 * 1024
    /// Bytes of all header fields together.
    package var headerListSize = 48 * 1024
    package var headerFieldCount = 128
    /// Requests that one connection may carry before it is closed after an answer; `Int.max` is no limit.
    package var requestsPerConnection = 10_000
    /// Streams that a client may have open on one HTTP/2 connection (SETTINGS_MAX_CONCURRENT_STREAMS).
    package var streamsPerConnection = 100
    /// Bytes that may wait for one HTTP/2 stream's reader.
    package var streamWindow = 1 << 20
    /// Bytes that may wait for the readers of one HTTP/2 connection.
    package var connectionWindow = 4 << 20
    /// Requests of one client, an IPv4 address or an IPv6 /64, that are under way at once on all its connections; `Int.max` is no limit.
    package var requestsInFlightPerClient = 1024
    /// Idle upstream connections for one target and loop.
    package var poolIdlePerTarget = 512
    /// Idle upstream connections of one loop.
    package var poolIdleTotal = 1024
    /// 1xx answers to one request, 101 apart.
    package var informationalResponses = 16
    /// Seconds in `Retry-After` of a 503.
    package var retryAfter = 5

    package init() {}

    /// An agent keeps its connections longer than a gateway's pool does, so that a pooled connection is not closed in the moment of its use.
    package static var agent: ProxyLimits {
        var limits = ProxyLimits()
        limits.keepAliveIdle = .seconds(100)
        limits.responseHead = .seconds(65)
        limits.poolIdle = .seconds(30)
        // Its only clients are its gateways, which carry the requests of many and bound them.
        limits.minimumBodyRate = 0
        limits.requestsPerConnection = .max
        limits.requestsInFlightPerClient = .max
        // The gateway has judged what a visitor sends, joined cookies and added fields of its own.
        limits.headerFieldCount += 32
        limits.headerListSize += 16 * 1024
        limits.headerFieldSize = limits.headerListSize
        return limits
    }

    package var head: HeadScanner.Limits { .init(startLine: requestLineSize, section: headerListSize) }
    package var fields: HeadParser.Limits { .init(fieldSize: headerFieldSize, fieldCount: headerFieldCount) }
    package var body: BodyDecoder.Limits { .init(section: headerListSize, fields: fields) }
}
