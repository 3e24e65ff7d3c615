import Logging

/// What a gateway does at SIGHUP: reads its configuration again and takes over what may change while it runs. Requests, WebSockets and
/// tunnels of routes that stay as they are never notice. A bad file changes nothing.
final class GatewayReload {
    private let input: ConfigurationInput
    private var current: GatewayConfiguration
    private let router: Router
    private let selector: CertificateSelector
    private let services: [ProxyService]
    private let logger: Logger

    init(
        input: ConfigurationInput, current: GatewayConfiguration, router: Router, selector: CertificateSelector, services: [ProxyService],
        logger: Logger
    ) {
        self.input = input
        self.current = current
        self.router = router
        self.selector = selector
        self.services = services
        self.logger = logger
    }

    func run() {
        let (loaded, report) = GatewayConfiguration.load(input)
        for warning in report.warnings { logger.warning("\(warning)") }
        guard let new = loaded, report.faults.isEmpty else {
            for fault in report.faults { logger.error("The configuration stays as it was", metadata: ["error": "\(fault)"]) }
            return
        }
        do {
            // New names first, so that no route is open without a certificate.
            try selector.update(domains: new.routes.map(\.domain))
        } catch {
            return logger.error("The configuration stays as it was", metadata: ["error": "\(error)"])
        }
        var certificates = "read again"
        do {
            try selector.refresh()
        } catch {
            certificates = "unchanged"
            logger.error("Certificates stay as they are", metadata: ["error": "\(error)"])
        }
        let changes = RouteChanges(from: current.routes, to: new.routes)
        if !changes.isEmpty { router.updateTunnels(new.routes) }
        let trusted = TrustedProxies(new.trustedProxies)
        for service in services { service.update(trustedProxies: trusted) }
        let ignored = needsRestart(new)
        if !ignored.isEmpty {
            logger.warning("Some settings count only after a restart", metadata: ["settings": "\(ignored.joined(separator: ", "))"])
        }
        current.routes = new.routes
        current.trustedProxies = new.trustedProxies
        logger.info(
            "Configuration reloaded",
            metadata: [
                "added": "\(changes.added)", "removed": "\(changes.removed)", "changed": "\(changes.changed)",
                "unchanged": "\(changes.unchanged)", "certificates": "\(certificates)",
            ])
    }

    private func needsRestart(_ new: GatewayConfiguration) -> [String] {
        var names: [String] = []
        if new.https != current.https || new.http != current.http || new.publicHTTPSPort != current.publicHTTPSPort {
            names.append("listen addresses")
        }
        if !new.interface.isLike(current.interface) { names.append("WireGuard interface and peers") }
        if new.limits != current.limits { names.append("limits") }
        if new.certificates != current.certificates { names.append("the list of certificates") }
        if new.common != current.common { names.append("logging and state directory") }
        return names
    }
}

/// How two lists of routes differ, by domain.
struct RouteChanges: Equatable {
    private(set) var added = 0
    private(set) var removed = 0
    private(set) var changed = 0
    private(set) var unchanged = 0

    init(from old: [TunnelConfig], to new: [TunnelConfig]) {
        let before = Dictionary(old.map { ($0.domain, $0) }, uniquingKeysWith: { first, _ in first })
        let domains = Set(new.map(\.domain))
        for route in new {
            switch before[route.domain] {
            case nil: added += 1
            case route?: unchanged += 1
            case _?: changed += 1
            }
        }
        removed = before.keys.count { !domains.contains($0) }
    }

    var isEmpty: Bool { added == 0 && removed == 0 && changed == 0 }
}

extension InterfaceSettings {
    /// Whether addresses, port and peers are the same; keys of peers that stay are not compared.
    fileprivate func isLike(_ other: InterfaceSettings) -> Bool {
        addresses.map(\.address) == other.addresses.map(\.address) && listenPort == other.listenPort && mtu == other.mtu
            && peers.map(\.publicKey) == other.peers.map(\.publicKey) && peers.map(\.allowedIPs) == other.peers.map(\.allowedIPs)
    }
}
