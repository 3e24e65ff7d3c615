import Proxy

/// Files that exist only in a test.
enum Fixture {
    static let gatewayKey = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    static let agentKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
    static let presharedKey = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak="

    static let gatewayFile = """
        [Interface]
        PrivateKey = \(gatewayKey)
        Address = 10.1.0.254/24, fd00::fe/64
        ListenPort = 51820
        [Peer]
        PublicKey = \(agentKey)
        AllowedIPs = 10.1.0.0/24, fd00::2/128, 10.9.0.0/16
        """

    static let agentFile = """
        [Interface]
        PrivateKey = \(agentKey)
        Address = 10.1.0.2/24
        [Peer]
        PublicKey = \(gatewayKey)
        AllowedIPs = 10.1.0.254/32
        Endpoint = 192.0.2.1:51820
        """

    static func input(
        _ flags: [String: [String]] = [:], environment: [String: String] = ["HOME": "/home/me"], files: [String: String] = [:],
        worldReadable: Set<String> = []
    ) -> ConfigurationInput {
        let all = ["g.conf": gatewayFile, "a.conf": agentFile].merging(files) { _, new in new }
        return ConfigurationInput(
            flags: flags, environment: environment,
            readFile: { path throws(FileError) in
                guard let text = all[path] else { throw FileError(path: path, problem: .system(.reading, 2)) }
                return SystemFiles.Contents(bytes: Array(text.utf8), isWorldReadable: worldReadable.contains(path))
            }, programFault: { _ in nil })
    }

    static func gateway(_ input: ConfigurationInput) -> (configuration: GatewayConfiguration?, faults: [String], warnings: [String]) {
        let (configuration, report) = GatewayConfiguration.load(input)
        return (configuration, report.faults.map(\.description), report.warnings.map(\.description))
    }

    static func agent(_ input: ConfigurationInput) -> (configuration: AgentConfiguration?, faults: [String], warnings: [String]) {
        let (configuration, report) = AgentConfiguration.load(input)
        return (configuration, report.faults.map(\.description), report.warnings.map(\.description))
    }
}
