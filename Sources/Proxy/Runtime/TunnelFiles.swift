import Inet
import Noise
import WGUserspace

/// A matching pair of wg-quick files for one gateway and one agent, with fresh keys.
package struct TunnelFiles {
    package static let gatewayAddress = IPAddress(v4: 10, 1, 0, 254)
    package static let agentAddress = IPAddress(v4: 10, 1, 0, 2)

    package let gateway: String
    package let agent: String

    /// - Parameter endpoint: where the agent reaches the gateway; its port becomes the gateway's `ListenPort`.
    package init(endpoint: WGQuickFile.Endpoint, random: RandomSource) {
        let gatewayKey = PrivateKey.generate(using: random)
        let agentKey = PrivateKey.generate(using: random)
        let presharedKey = PresharedKey.generate(using: random).base64ForFile()
        let port: UInt16
        switch endpoint {
        case .address(let address): port = address.port
        case .name(_, let namedPort): port = namedPort
        }
        gateway = """
            [Interface]
            PrivateKey = \(gatewayKey.base64ForFile())
            Address = \(Self.gatewayAddress)/24
            ListenPort = \(port)

            [Peer]
            PublicKey = \(agentKey.publicKey)
            PresharedKey = \(presharedKey)
            AllowedIPs = \(Self.agentAddress)/32

            """
        agent = """
            [Interface]
            PrivateKey = \(agentKey.base64ForFile())
            Address = \(Self.agentAddress)/24

            [Peer]
            PublicKey = \(gatewayKey.publicKey)
            PresharedKey = \(presharedKey)
            AllowedIPs = \(Self.gatewayAddress)/32
            Endpoint = \(endpoint)
            PersistentKeepalive = 25

            """
    }

    /// Writes `gateway.conf` and `agent.conf`, both or none. Existing files are an error.
    /// - Parameter directory: must exist.
    package func write(to directory: String) throws(FileError) -> (gateway: String, agent: String) {
        let paths = (gateway: "\(directory)/gateway.conf", agent: "\(directory)/agent.conf")
        if SystemFiles.exists(paths.agent) { throw FileError(path: paths.agent, problem: .exists) }
        try SystemFiles.create(paths.gateway, Array(gateway.utf8))
        do {
            try SystemFiles.create(paths.agent, Array(agent.utf8))
        } catch {
            SystemFiles.remove(paths.gateway)
            throw error
        }
        return paths
    }
}
