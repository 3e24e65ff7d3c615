import Noise

/// What a running process takes over of a new configuration where a part of it alone would cut off what runs: that part waits for the
/// next start, and the log says so.
extension GatewayConfiguration {
    /// - Parameters:
    ///   - started: what the process was started with.
    ///   - current: what it has taken over since.
    ///   - key: the running interface's.
    /// - Returns: the configuration to take over; for the log, what stays as it is and the next step.
    package func adapted(
        to started: GatewayConfiguration, current: GatewayConfiguration, key: PublicKey
    ) -> (configuration: GatewayConfiguration, kept: [String]) {
        var (result, kept) = (self, [String]())
        let reason: String?
        (result.interface, reason) = interface.adapted(to: started.interface, current: current.interface, key: key)
        if let reason { kept.append(reason) }
        if acme != nil, started.acme == nil, !current.certificates.isEmpty {
            let rest = certificatesToKeep(of: current.certificates)
            result.certificates += rest
            if !rest.isEmpty {
                kept.append(
                    "ACME begins at the next start only; until then the certificate files of before are served: restart the gateway")
            }
        }
        return (result, kept)
    }

    /// Those that nothing takes the place of. Of a pair with domains, the domains that no other pair is for now.
    private func certificatesToKeep(of current: [CertificateFiles]) -> [CertificateFiles] {
        let named = Set(certificates.flatMap(\.domains))
        return current.filter { !certificates.contains($0) }.compactMap { pair in
            var rest = pair
            rest.domains.removeAll { named.contains($0) }
            return rest.domains.isEmpty && !pair.domains.isEmpty ? nil : rest
        }
    }
}

extension InterfaceSettings {
    /// The key changes at the next start only, and the peers of another key are others: neither is of use without the other.
    /// - Returns: the settings with the peers to have; for the log, why they are those of before.
    package func adapted(
        to started: InterfaceSettings, current: InterfaceSettings, key: PublicKey
    ) -> (settings: InterfaceSettings, kept: String?) {
        // `wg set` may have given the interface another key: a file with the key of the start brings its peers nevertheless.
        if privateKey.key.publicKey == key || privateKey.key.isEqual(to: started.privateKey.key) { return (self, nil) }
        var settings = self
        settings.peers = current.peers
        return (
            settings, "The file has another private key than the running interface: key and peers stay as they are; restart to change both"
        )
    }
}
