import NIOCore

/// What the HTTP side of one event loop has counted. Plain integers, touched on that loop only: a request costs some tens of
/// nanoseconds, and loops do not meet. Not sendable; ``ProxyService/httpTotals()`` asks each loop.
package final class HTTPCounters {
    package enum ConnectionKind: Int, CaseIterable, Sendable { case http1, http2, websocket }

    /// Why a client was not served.
    package enum Refusal: Int, CaseIterable, Sendable {
        case headerTimeout, headerTooLarge, bodyIdle, bodyTooSlow, clientLimit, badRequest, methodNotAllowed, notImplemented, misdirected
        case unknownHost, disabled, http2Error, http2Flood
    }

    package enum UpstreamFault: Int, CaseIterable, Sendable {
        case unreachable, refused, broken, noResponse

        package init(_ failure: UpstreamFailure) {
            self =
                switch failure {
                case .unreachable: .unreachable
                case .refused: .refused
                case .broken: .broken
                }
        }
    }

    package enum TLSFault: Int, CaseIterable, Sendable { case timeout, failed }

    package private(set) var totals = HTTPTotals()
    private var places: [String: Int] = [:]
    /// Of routes seen lately, by their address: to hash a domain takes longer than all the rest.
    private var recent = [(route: Route, place: Int)?](repeating: nil, count: 64)

    package init() {}

    /// A request is over, whatever became of it.
    /// - Parameters:
    ///   - route: `nil` if there was none for its host, or nobody has asked.
    ///   - status: of the final response, 101 included; 0 if there was none.
    ///   - bytesIn: bytes of its body.
    ///   - bytesOut: bytes of the response's body.
    ///   - duration: from its head to the last byte of the response.
    package func requestEnded(route: Route?, status: Int, bytesIn: Int, bytesOut: Int, duration: TimeAmount) {
        totals.routes[place(of: route)].add(
            status: status, bytesIn: UInt64(clamping: bytesIn), bytesOut: UInt64(clamping: bytesOut), duration: duration)
    }

    package func connectionOpened(_ kind: ConnectionKind) { totals.connectionsOpened[kind.rawValue] &+= 1 }
    package func connectionClosed(_ kind: ConnectionKind) { totals.connectionsClosed[kind.rawValue] &+= 1 }
    package func streamOpened() { totals.streamsOpened &+= 1 }
    package func streamClosed() { totals.streamsClosed &+= 1 }
    package func refused(_ reason: Refusal) { totals.refusals[reason.rawValue] &+= 1 }

    package func tlsEstablished() { totals.tlsEstablished &+= 1 }
    package func tlsFailed(_ fault: TLSFault) { totals.tlsFaults[fault.rawValue] &+= 1 }

    package func upstreamOpened() { totals.upstreamOpened &+= 1 }
    package func upstreamClosed() { totals.upstreamClosed &+= 1 }
    package func upstreamFailed(_ fault: UpstreamFault) { totals.upstreamFaults[fault.rawValue] &+= 1 }
    /// A request goes out once more, on another connection.
    package func requestRetried() { totals.retries &+= 1 }

    private func place(of route: Route?) -> Int {
        guard let route else { return HTTPTotals.noRoute }
        let slot = Int(UInt(bitPattern: ObjectIdentifier(route)) >> 5 & 63)
        if let known = recent[slot], known.route === route { return known.place }
        let place = places[route.domain] ?? newPlace(route.domain)
        recent[slot] = (route, place)
        return place
    }

    private func newPlace(_ domain: String) -> Int {
        guard totals.routes.count <= Self.maximumRoutes else { return HTTPTotals.noRoute }
        totals.routes.append(HTTPTotals.RouteTotals(domain: domain))
        places[domain] = totals.routes.count - 1
        return totals.routes.count - 1
    }

    /// Domains that were ever configured; more are counted with those without a route.
    package static let maximumRoutes = 10_000
}

/// Sums of ``HTTPCounters``.
package struct HTTPTotals: Sendable {
    package struct RouteTotals: Sendable {
        /// The configured domain; "-" for requests without a route.
        package var domain: String
        /// By the first digit of the status; 0 for those without a response.
        package var classes: [UInt64] = .init(repeating: 0, count: 6)
        /// Not cumulative; the last is what took longer than all bounds.
        package var durations: [UInt64] = .init(repeating: 0, count: bounds.count + 1)
        package var durationSum: UInt64 = 0
        package var bytesIn: UInt64 = 0
        package var bytesOut: UInt64 = 0

        init(domain: String) { self.domain = domain }

        mutating func add(status: Int, bytesIn: UInt64, bytesOut: UInt64, duration: TimeAmount) {
            classes[min(5, max(0, status / 100))] &+= 1
            var place = 0
            while place < bounds.count, duration > bounds[place] { place += 1 }
            durations[place] &+= 1
            durationSum &+= UInt64(clamping: duration.nanoseconds)
            self.bytesIn &+= bytesIn
            self.bytesOut &+= bytesOut
        }

        mutating func add(_ other: RouteTotals) {
            classes.add(other.classes)
            durations.add(other.durations)
            durationSum &+= other.durationSum
            bytesIn &+= other.bytesIn
            bytesOut &+= other.bytesOut
        }
    }

    /// Upper bounds of the durations' buckets.
    package static let bounds: [TimeAmount] = [
        1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000,
    ].map { .milliseconds($0) }
    static let noRoute = 0

    package var routes = [RouteTotals(domain: "-")]
    package var connectionsOpened = [UInt64](repeating: 0, count: HTTPCounters.ConnectionKind.allCases.count)
    package var connectionsClosed = [UInt64](repeating: 0, count: HTTPCounters.ConnectionKind.allCases.count)
    package var streamsOpened: UInt64 = 0
    package var streamsClosed: UInt64 = 0
    package var refusals = [UInt64](repeating: 0, count: HTTPCounters.Refusal.allCases.count)
    package var tlsEstablished: UInt64 = 0
    package var tlsFaults = [UInt64](repeating: 0, count: HTTPCounters.TLSFault.allCases.count)
    package var upstreamOpened: UInt64 = 0
    package var upstreamClosed: UInt64 = 0
    /// Connections that wait for a request, at the moment of the question.
    package var upstreamIdle: UInt64 = 0
    package var upstreamFaults = [UInt64](repeating: 0, count: HTTPCounters.UpstreamFault.allCases.count)
    package var retries: UInt64 = 0

    package init() {}

    /// Adds what another loop has counted.
    package mutating func add(_ other: HTTPTotals) {
        var places = Dictionary(routes.enumerated().map { ($1.domain, $0) }) { first, _ in first }
        for route in other.routes {
            if let place = places[route.domain] {
                routes[place].add(route)
            } else {
                places[route.domain] = routes.count
                routes.append(route)
            }
        }
        connectionsOpened.add(other.connectionsOpened)
        connectionsClosed.add(other.connectionsClosed)
        streamsOpened &+= other.streamsOpened
        streamsClosed &+= other.streamsClosed
        refusals.add(other.refusals)
        tlsEstablished &+= other.tlsEstablished
        tlsFaults.add(other.tlsFaults)
        upstreamOpened &+= other.upstreamOpened
        upstreamClosed &+= other.upstreamClosed
        upstreamIdle &+= other.upstreamIdle
        upstreamFaults.add(other.upstreamFaults)
        retries &+= other.retries
    }
}

extension [UInt64] {
    fileprivate mutating func add(_ other: [UInt64]) {
        for index in indices { self[index] &+= other[index] }
    }
}
