import NIOCore

/// What is spoken to an upstream.
package enum UpstreamProtocol: String, Sendable, Hashable, CaseIterable {
    case http1
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3): gRPC servers want it.
    case h2c
}

/// How one route differs from the others.
package struct RouteOptions: Sendable, Hashable {
    package enum ResponseTimeout: Sendable, Hashable {
        /// As ``ProxyLimits/responseHead`` says.
        case inherit
        case off
        case after(TimeAmount)

        /// From the end of the request to the head of the response; nil is for ever.
        package func amount(inherited: TimeAmount) -> TimeAmount? {
            switch self {
            case .inherit: inherited
            case .off: nil
            case .after(let amount): amount
            }
        }
    }

    package var upstreamProtocol = UpstreamProtocol.http1
    package var responseTimeout = ResponseTimeout.inherit
    /// What a request may upgrade to, in lower case.
    package var upgrades = ["websocket"]
    /// An upgraded connection without a byte in either direction; nil is as ``ProxyLimits/upgradedIdle`` says.
    package var upgradedIdle: TimeAmount?

    package init() {}
}
