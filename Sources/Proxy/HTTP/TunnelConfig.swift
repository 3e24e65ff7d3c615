import Inet

/// A published service: requests for `domain` go to `agentVirtualIP:port` inside the tunnel network.
package struct TunnelConfig: Sendable, Equatable {
    package var id: String
    /// A host name, or `*.` and a suffix.
    package var domain: String
    package var agentVirtualIP: IPAddress
    package var port: UInt16
    /// The source address of connections to the agent; nil lets the connector choose.
    package var gatewayIP: IPAddress?
    /// What the agent forwards to, for display only: the agent has its own table.
    package var target: String
    package var enabled: Bool
    package var options: RouteOptions

    package init(
        id: String, domain: String, agentVirtualIP: IPAddress, port: UInt16 = 80, gatewayIP: IPAddress? = nil, target: String = "",
        enabled: Bool = true, options: RouteOptions = RouteOptions()
    ) {
        self.id = id
        self.domain = domain
        self.agentVirtualIP = agentVirtualIP
        self.port = port
        self.gatewayIP = gatewayIP
        self.target = target
        self.enabled = enabled
        self.options = options
    }
}

/// Where a request goes next. Also the key of pooled connections: a changed route with an equal target keeps them.
package struct UpstreamTarget: Sendable, Hashable, CustomStringConvertible {
    package enum Host: Sendable, Hashable {
        case address(IPAddress)
        /// Resolved by the connector; never the case at a gateway.
        case name(String)
    }

    package var host: Host
    package var port: UInt16
    package var source: IPAddress?
    /// What is spoken there: connections of one kind are never used for the other.
    package var upstreamProtocol = UpstreamProtocol.http1

    package init(address: IPAddress, port: UInt16, source: IPAddress? = nil) {
        host = .address(address)
        self.port = port
        self.source = source
    }

    package init(host: Host, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Parses `10.0.0.1:80`, `[fd00::2]:80`, `localhost:8080`, `app:3000`.
    package init?(_ text: String) {
        if let endpoint = SocketEndpoint(text) {
            self.init(address: endpoint.address, port: endpoint.port)
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0,
            text[text.index(after: colon)...].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let host = HostName.normalize(String(text[..<colon])), !host.isEmpty, !host.utf8.contains(UInt8(ascii: ":"))
        else { return nil }
        self.init(host: .name(host), port: port)
    }

    package var address: IPAddress? {
        if case .address(let address) = host { address } else { nil }
    }

    package var description: String {
        switch host {
        case .address(let address): SocketEndpoint(address, port: port).description
        case .name(let name): "\(name):\(port)"
        }
    }
}
