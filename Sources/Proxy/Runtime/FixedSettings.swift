/// Settings that a running process does not change: their names, where two configurations differ.
package enum FixedSettings {
    package static func differences(_ old: GatewayConfiguration, _ new: GatewayConfiguration) -> [String] {
        names([
            ("https", old.https == new.https), ("http", old.http == new.http),
            ("public-https-port", old.publicHTTPSPort == new.publicHTTPSPort), ("access-log", old.accessLog == new.accessLog),
            ("limits", old.limits.proxy == new.limits.proxy), ("acme, cluster", old.acme == new.acme),
            ("alerts", old.alerts == new.alerts),
        ]) + differences(old.interface, new.interface) + differences(old.common, new.common)
    }

    package static func differences(_ old: AgentConfiguration, _ new: AgentConfiguration) -> [String] {
        names([("listen-port", old.listenPort == new.listenPort), ("limits", old.limits == new.limits)])
            + differences(old.interface, new.interface) + differences(old.common, new.common)
    }

    private static func differences(_ old: InterfaceSettings, _ new: InterfaceSettings) -> [String] {
        names([
            ("WireGuard's private key", old.privateKey.key.isEqual(to: new.privateKey.key)),
            ("WireGuard's addresses", old.addresses == new.addresses), ("WireGuard's listen port", old.listenPort == new.listenPort),
            ("MTU", old.mtu == new.mtu),
        ])
    }

    private static func differences(_ old: CommonConfiguration, _ new: CommonConfiguration) -> [String] {
        names([
            ("state", old.stateDirectory == new.stateDirectory), ("log-level", old.logLevel == new.logLevel),
            ("log-format", old.logFormat == new.logFormat), ("interface", old.interfaceName == new.interfaceName),
            ("metrics-listen", old.metricsListen == new.metricsListen), ("crypto transport", old.cryptoTransport == new.cryptoTransport),
            ("loops", old.loops == new.loops),
        ])
    }

    private static func names(_ settings: [(name: String, isSame: Bool)]) -> [String] { settings.filter { !$0.isSame }.map(\.name) }
}
