import ArgumentParser
import WGUserspace

struct InitCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init",
        abstract: "Writes matching WireGuard files for a gateway and an agent, and prints how to start both.",
        discussion: """
            Example:
              kakuremichi init --domain app.example.com --endpoint vpn.example.com:51820 --out tunnel

            Writes tunnel/gateway.conf and tunnel/agent.conf, mode 0600, and never overwrites a file.
            Copy agent.conf to the agent's machine.
            """)

    @Option(help: ArgumentHelp("The domain to publish.", valueName: "domain"))
    var domain: String

    @Option(help: ArgumentHelp("Where agents reach the gateway, UDP.", valueName: "host:port"))
    var endpoint: String

    @Option(help: ArgumentHelp("Directory for the two files; made if it is missing.", valueName: "dir"))
    var out: String

    func run() throws {
        let domainSetting = Setting(value: .text(domain), origin: .flag, key: "--domain")
        let name = try DomainName.parse(domain, domainSetting)
        guard let endpoint = WGQuickFile.Endpoint(endpoint) else {
            throw CommandFailure(
                "--endpoint: \(Setting.quoted(self.endpoint)) is not valid; write HOST:PORT, such as vpn.example.com:51820 or [2001:db8::1]:51820"
            )
        }
        try SystemFiles.createDirectory(out)
        let paths = try TunnelFiles(endpoint: endpoint, random: Startup.random).write(to: out)
        print(ShellText.start(domain: name, gateway: paths.gateway, agent: paths.agent))
    }
}

/// Words for a shell command line.
package enum ShellText {
    /// What `init` says of the files that it wrote.
    package static func start(domain: String, gateway: String, agent: String) -> String {
        """
        Wrote \(gateway) and \(agent). They hold private keys.

        On the gateway, which \(domain) must point to:
          kakuremichi gateway --wg \(quoted(gateway)) --route \(quoted(domain))=\(TunnelFiles.agentAddress)

        On the agent's machine, with agent.conf copied there and your web server's address as the target:
          kakuremichi agent --wg \(quoted(agent)) --target 127.0.0.1:8080
        """
    }

    /// What `certs trust` says of the root.
    package static func trust(_ path: String) -> String {
        let file = quoted(path)
        return """
            The internal CA's root is \(LogText.escape(path)).
            Trust it on machines that you test from, and nowhere else:

              curl                 curl --cacert \(file) https://app.example.com/
              Debian, Ubuntu       sudo cp \(file) /usr/local/share/ca-certificates/kakuremichi.crt && sudo update-ca-certificates
              Fedora               sudo cp \(file) /etc/pki/ca-trust/source/anchors/ && sudo update-ca-trust
              macOS                sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain \(file)
              Windows              certutil -addstore -f Root internal-ca.pem
              Firefox              Settings, Certificates, View Certificates, Authorities, Import
              Chromium on Linux    certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n kakuremichi -i \(file)
              Node.js              NODE_EXTRA_CA_CERTS=\(file)

            It is made anew when a domain is added that it may not vouch for; trust the new file then.
            """
    }

    package static func quoted(_ word: String) -> String {
        let isPlain =
            !word.isEmpty
            && word.utf8.allSatisfy {
                (0x61...0x7A).contains($0 | 0x20) || (0x30...0x39).contains($0) || [0x2D, 0x2E, 0x2F, 0x5F, 0x3A].contains($0)
            }
        return isPlain ? word : "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }
}
