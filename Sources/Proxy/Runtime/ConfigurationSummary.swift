import FoundationEssentials

/// What `--check` prints about a good configuration. No keys but public ones.
extension GatewayConfiguration {
    package var summary: String {
        var lines = interface.summary
        for route in routes {
            let source = route.gatewayIP.map { " from \($0)" } ?? ""
            lines.append("route \(route.domain) -> \(route.target)\(route.options.summary)\(source)\(route.enabled ? "" : " (disabled)")")
        }
        lines.append("https \(https.isEmpty ? "off" : https.map(\.description).joined(separator: ", "))")
        lines.append("http \(http.isEmpty ? "off" : http.map(\.description).joined(separator: ", "))")
        if !trustedProxies.isEmpty { lines.append("trusted proxies \(trustedProxies.map(\.description).joined(separator: ", "))") }
        lines += certificates.map { "certificate \(LogText.escape($0.certificateFile))" }
        if let acme {
            lines.append("certificates by ACME from \(acme.authorities.map(\.directory.text).joined(separator: ", "))")
            lines.append(
                "  challenges \(acme.challenges.map(\.rawValue).joined(separator: ", ")), cache \(LogText.escape(acme.cacheDirectory))")
        } else if certificates.isEmpty {
            lines.append("certificate by the internal CA")
        }
        if let accessLog { lines.append("access log \(LogText.escape(accessLog))") }
        if let state = common.stateDirectory { lines.append("state \(LogText.escape(state))") }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension AgentConfiguration {
    package var summary: String {
        var lines = interface.summary
        lines += targets.all.map { "tunnel \($0.domain) -> \($0.target)\($0.options.summary)\($0.enabled ? "" : " (disabled)")" }
        lines.append("listen port \(listenPort) in the tunnel")
        if let state = common.stateDirectory { lines.append("state \(LogText.escape(state))") }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension RouteOptions {
    /// What is not as usual.
    fileprivate var summary: String {
        var words: [String] = []
        if upstreamProtocol != .http1 { words.append(upstreamProtocol.rawValue) }
        switch responseTimeout {
        case .inherit: break
        case .off: words.append("response timeout off")
        case .after(let amount): words.append("response timeout \(Setting.text(amount))")
        }
        if upgrades != RouteOptions().upgrades {
            words.append(upgrades.isEmpty ? "no upgrades" : "upgrades to \(upgrades.joined(separator: ", "))")
        }
        if let upgradedIdle { words.append("idle timeout \(Setting.text(upgradedIdle))") }
        return words.isEmpty ? "" : " (\(words.joined(separator: "; ")))"
    }
}

extension InterfaceSettings {
    var summary: [String] {
        let port = listenPort == 0 ? "chosen by the system" : "\(listenPort)"
        return [
            "interface \(privateKey.key.publicKey), \(addresses.map(\.description).joined(separator: ", ")), UDP port \(port), MTU \(mtu)"
        ]
            + peers.map { peer in
                let allowed = peer.allowedIPs.map(\.description).joined(separator: ", ")
                return "peer \(peer.publicKey), \(allowed)\(peer.endpoint.map { ", at \($0)" } ?? "")"
            }
    }
}

extension ConfigurationReport {
    /// What `--check` asks of certificate files beyond their being there: that each key belongs to its certificate, and the names.
    package mutating func checkCertificates(_ certificates: [CertificateFiles]) {
        do throws(CertificateFileError) {
            let loaded = try PEMCertificates.load(certificates, applicationProtocols: [], now: Date())
            warnings += loaded.warnings.map { ConfigurationFault(.builtIn, key: nil, $0, fix: "") }
        } catch {
            faults.append(ConfigurationFault(.builtIn, key: nil, "\(error)", fix: ""))
        }
    }
}
