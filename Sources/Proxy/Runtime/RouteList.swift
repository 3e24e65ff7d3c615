/// The routes of a running gateway, as `route list` shows them.
package struct RouteList: Codable, Sendable, Equatable {
    package enum Origin: String, Codable, Sendable {
        /// The configuration, its file or its flags.
        case file
        /// `route add`: until the process ends.
        case runTime = "run time"
    }

    package struct Route: Codable, Sendable, Equatable {
        package var domain: String
        package var agent: String
        package var `protocol`: String
        package var enabled: Bool
        package var origin: Origin

        package init(_ route: TunnelConfig, origin: Origin) {
            domain = route.domain
            agent = route.target
            self.protocol = route.options.upstreamProtocol.rawValue
            enabled = route.enabled
            self.origin = origin
        }
    }

    /// What `route add` and `route remove` answer.
    package struct Answer: Codable, Sendable, Equatable {
        package var route: Route
        /// Whether it took the place of one that was added before.
        package var replaced = false
        package var warning: String?
    }

    package var routes: [Route]

    /// The form for people.
    package var table: String {
        guard !routes.isEmpty else { return "no routes; kakuremichi route add DOMAIN=IP adds one\n" }
        let rows = routes.map { [$0.domain, $0.agent, $0.protocol, $0.enabled ? "enabled" : "disabled", $0.origin.rawValue] }
        return Status.columns(["ROUTE", "AGENT", "PROTOCOL", "STATE", "FROM"], rows).dropFirst().joined(separator: "\n") + "\n"
    }
}
