import Inet
import Logging
import Noise
import Proxy
import Testing
import WGUserspace

@Suite struct ReloadTests {
    private func gateway(_ text: String, wg: String = Fixture.gatewayFile) throws -> GatewayConfiguration {
        let files = ["g.toml": "[wireguard]\nconfig = \"wg.conf\"\n\(text)", "wg.conf": wg]
        return try #require(Fixture.gateway(Fixture.input(["config": ["g.toml"]], files: files)).configuration)
    }

    private func logged<Configuration>(
        _ result: (Configuration?, ConfigurationReport), _ body: (Reload<Configuration>) -> Void
    ) -> [String] where Configuration: Sendable {
        let lines = LineCollector()
        let (configuration, report) = result
        body(Reload(load: { (configuration, report) }, logger: Logger(label: "test", factory: { _ in lines })))
        return lines.all
    }

    @Test("a bad configuration is not taken over, and each fault is in the log with the next step")
    func bad() {
        let toml = "colour = 1\n[wireguard]\nconfig = \"g.conf\"\n[[tunnel]]\ndomain = \"a..b\"\nagent = \"10.1.0.2\"\n"
        let loaded = GatewayConfiguration.load(Fixture.input(["config": ["g.toml"]], files: ["g.toml": toml]))
        let lines = logged((loaded.configuration, loaded.report)) { #expect($0.read() == nil) }
        #expect(lines.count == 3)
        #expect(lines.contains { $0.hasPrefix("error g.toml:1:1: colour: no such key; write one of ") })
        #expect(lines.contains { $0.hasPrefix("error g.toml:5:10: domain: \"a..b\" is not a domain; write a name such as ") })
        #expect(lines.last?.hasPrefix("error The configuration is not reloaded [error=its faults are above") == true)
    }

    @Test("a good one is taken over, with its warnings; what changed and what waits for a restart is one line each")
    func good() {
        let loaded = GatewayConfiguration.load(Fixture.input(["wg": ["g.conf"]]))
        let lines = logged((loaded.configuration, loaded.report)) { reload in
            #expect(reload.read() != nil)
            reload.finish(["1 tunnel added", "certificates reloaded"], fixed: ["https", "limits"])
            reload.finish(["nothing"], fixed: [])
        }
        #expect(lines.count == 4)
        #expect(lines.first?.hasPrefix("warning route: no route is given") == true)
        #expect(lines[1] == "warning These settings change at the next start only [settings=https, limits]")
        #expect(lines[2] == "notice Configuration reloaded: 1 tunnel added; certificates reloaded []")
    }

    @Test("settings that need a restart are named, and only those that differ")
    func fixed() throws {
        let tunnel = "[[tunnel]]\ndomain = \"a.test\"\nagent = \"10.1.0.2\"\n"
        let old = try gateway(tunnel)
        #expect(FixedSettings.differences(old, try gateway(tunnel + "port = 81\n")) == [])
        let other = Fixture.gatewayFile.split(separator: "\n").map { line in
            line.hasPrefix("PrivateKey")
                ? "PrivateKey = \(Fixture.presharedKey)" : line.hasPrefix("ListenPort") ? "ListenPort = 1" : "\(line)"
        }.joined(separator: "\n")
        let files = [
            "g.toml":
                "https = \"[::]:1\"\nlog-level = \"debug\"\n[limits]\nretry-after = \"9s\"\n[wireguard]\nconfig = \"wg.conf\"\n\(tunnel)",
            "wg.conf": other,
        ]
        let new = try #require(Fixture.gateway(Fixture.input(["config": ["g.toml"]], files: files)).configuration)
        #expect(
            FixedSettings.differences(old, new) == [
                "https", "public-https-port", "limits", "WireGuard's private key", "WireGuard's listen port", "log-level",
            ])
    }

    @Test("a file with another private key changes no peers; one with the key of before, or of now, does")
    func privateKey() throws {
        let started = try gateway("")
        let key = started.interface.privateKey.key.publicKey
        let morePeers = Fixture.gatewayFile + "\n[Peer]\nPublicKey = \(Fixture.presharedKey)\nAllowedIPs = 10.1.0.77/32\n"
        let other = try gateway("", wg: morePeers.replacing("PrivateKey = \(Fixture.gatewayKey)", with: "PrivateKey = \(Fixture.agentKey)"))
        let (kept, told) = other.adapted(to: started, current: started, key: key)
        #expect(PeerChanges(from: started.interface.peers, to: kept.interface.peers).isEmpty)
        #expect(
            told == ["The file has another private key than the running interface: key and peers stay as they are; restart to change both"])
        #expect(FixedSettings.differences(started, kept) == ["WireGuard's private key"])
        #expect(logged((started, ConfigurationReport())) { $0.tell(told) } == ["warning \(told[0]) []"])
        // `wg set` has given the interface the other key meanwhile.
        for (new, key) in [(other, other.interface.privateKey.key.publicKey), (try gateway("", wg: morePeers), key)] {
            let (taken, told) = new.adapted(to: started, current: started, key: key)
            #expect(taken.interface.peers.count == 2 && told.isEmpty)
        }
        let (again, _) = try gateway("", wg: morePeers).adapted(to: started, current: kept, key: other.interface.privateKey.key.publicKey)
        #expect(again.interface.peers.count == 2)
    }

    @Test("files that are to give way to ACME are served until the next start, which begins it")
    func filesToACME() throws {
        func files(_ domains: [String], _ name: String) -> CertificateFiles {
            CertificateFiles(domains: domains, certificateFile: name + ".pem", keyFile: name + ".key")
        }
        func adapted(_ old: [CertificateFiles], _ new: [CertificateFiles], acme: Bool = true, hadACME: Bool = false) throws -> (
            certificates: [CertificateFiles], kept: [String]
        ) {
            let on = "[acme]\nemail = \"me@example.org\"\n"
            var (started, configuration) = (try gateway(hadACME ? on : ""), try gateway(acme ? on : ""))
            (started.certificates, configuration.certificates) = (old, new)
            let result = configuration.adapted(
                to: started, current: started, key: started.interface.privateKey.key.publicKey)
            return (result.configuration.certificates, result.kept)
        }
        let (a, all, ab) = (files(["a.test"], "a"), files([], "all"), files(["a.test", "b.test"], "ab"))
        let moved = try adapted([a, all], [])
        #expect(moved.certificates == [a, all])
        #expect(
            moved.kept == ["ACME begins at the next start only; until then the certificate files of before are served: restart the gateway"]
        )
        #expect(try adapted([ab, all], [a]).certificates == [a, files(["b.test"], "ab"), all])
        #expect(try adapted([a], [files(["a.test"], "new")]) == ([files(["a.test"], "new")], []))
        #expect(try adapted([a], [a]) == ([a], []))
        #expect(try adapted([], []) == ([], []))
        #expect(try adapted([a], [], acme: false) == ([], []))
        #expect(try adapted([a], [], hadACME: true) == ([], []))
    }

    private func peer(_ key: String, _ allowed: [String], endpoint: String? = nil, preshared: String? = nil) throws -> WGQuickFile.Peer {
        var stored: StoredPresharedKey?
        if let preshared, let key = PresharedKey(base64: preshared) { stored = StoredPresharedKey(key) }
        return WGQuickFile.Peer(
            publicKey: try #require(PublicKey(base64: key)), presharedKey: stored,
            allowedIPs: allowed.compactMap { IPPrefix($0) }, endpoint: endpoint.flatMap { WGQuickFile.Endpoint($0) })
    }

    @Test("of peers only those are touched whose settings changed; the order of blocks is no change")
    func peers() throws {
        let (a, b, c) = (Fixture.gatewayKey, Fixture.agentKey, Fixture.presharedKey)
        let old = [try peer(a, ["10.0.0.1/32", "10.0.0.2/32"], preshared: c), try peer(b, ["10.0.0.3/32"])]
        let same = PeerChanges(from: old, to: [old[1], try peer(a, ["10.0.0.2/32", "10.0.0.1/32"], preshared: c)])
        #expect(same.isEmpty)
        let changes = PeerChanges(from: old, to: [try peer(a, ["10.0.0.1/32", "10.0.0.2/32"]), try peer(c, ["10.0.0.3/32"])])
        #expect(changes.description == "1 peer added, 1 removed, 1 changed")
        #expect(changes.removed.map(\.base64) == [b])
        #expect(changes.added.map(\.publicKey.base64) == [c])
        let moved = PeerChanges(from: old, to: [old[0], try peer(b, ["10.0.0.3/32"], endpoint: "192.0.2.1:1")])
        #expect(moved.description == "0 peers added, 0 removed, 1 changed")
    }

    @Test("a block that a later peer names is its own: the change of one is the change of both")
    func stolenBlocks() throws {
        let (a, b) = (Fixture.gatewayKey, Fixture.agentKey)
        let old = [try peer(a, ["10.0.0.0/24"]), try peer(b, ["10.0.1.0/24"])]
        let changes = PeerChanges(from: old, to: [old[0], try peer(b, ["10.0.1.0/24", "10.0.0.0/24"])])
        #expect(changes.changed.map(\.publicKey.base64) == [a, b])
        #expect(changes.changed.first?.allowedIPs == [])
    }

    @Test("after a change that broke off the next one begins with what runs", arguments: 0...4)
    func brokenOff(steps: Int) async throws {
        struct Fault: Error {}
        let (a, b, c) = (Fixture.gatewayKey, Fixture.agentKey, Fixture.presharedKey)
        let old = [try peer(a, ["10.0.0.1/32", "10.0.0.9/32"]), try peer(b, ["10.0.0.2/32"])]
        let new = [try peer(a, ["10.0.0.1/32"]), try peer(c, ["10.0.0.3/32", "10.0.0.9/32"])]
        var (left, running) = (steps, Dictionary(uniqueKeysWithValues: old.map { ($0.publicKey, $0.allowedIPs) }))
        func step() throws {
            guard left > 0 else { throw Fault() }
            left -= 1
        }
        func apply(from old: [WGQuickFile.Peer]) async -> (peers: [WGQuickFile.Peer], failure: (any Error)?) {
            await PeerChanges(from: old, to: new).apply(to: old) { key in
                try step()
                running[key] = nil
            } set: { peer in
                try step()
                running[peer.publicKey] = peer.allowedIPs
            }
        }
        let (peers, failure) = await apply(from: old)
        #expect((failure == nil) == (steps >= 3))
        #expect(Dictionary(uniqueKeysWithValues: peers.map { ($0.publicKey, $0.allowedIPs) }) == running)
        left = 9
        #expect(await apply(from: peers).failure == nil)
        #expect(running == Dictionary(uniqueKeysWithValues: new.map { ($0.publicKey, $0.allowedIPs) }))
        #expect(left == 9 - max(0, 3 - steps))
    }

    @Test("an agent's targets change, and how many are different is told")
    func agentTargets() throws {
        func targets(_ toml: String) throws -> LocalTargets {
            try #require(Fixture.agent(Fixture.input(["wg": ["a.conf"], "config": ["a.toml"]], files: ["a.toml": toml])).configuration)
                .targets
        }
        let proxy = LocalProxy(targets: try targets("target = \"t:1\""), logger: .silent)
        #expect(proxy.update(try targets("target = \"t:1\"")).description == "0 tunnels added, 0 removed, 0 changed, 1 unchanged")
        #expect(proxy.update(try targets("target = \"t:2\"")).changed == ["*"])
        let several = try targets("target = \"t:2\"\n[[tunnel]]\ndomain = \"a.test\"\ntarget = \"t:3\"\n")
        #expect(proxy.update(several).added == ["a.test"])
        #expect(proxy.targets == several)
        #expect(proxy.update(try targets("[[tunnel]]\ndomain = \"a.test\"\ntarget = \"t:3\"\n")).removed == ["*"])
    }

    @Test("endpoints of peers that are new are stored, those of removed ones are forgotten")
    func endpoints() throws {
        let temporary = TemporaryDirectory()
        let (a, b) = (try #require(PublicKey(base64: Fixture.gatewayKey)), try #require(PublicKey(base64: Fixture.agentKey)))
        let endpoint = try #require(SocketEndpoint("192.0.2.1:1"))
        let store = EndpointStore(path: temporary.file("endpoints"), peers: [a], eventLoop: Loopback().loop, logger: .silent)
        store.record(a, at: endpoint)
        store.record(b, at: endpoint)
        #expect(store.endpoints == [a: endpoint])
        store.track([b])
        store.record(b, at: endpoint)
        #expect(store.endpoints == [b: endpoint])
    }
}
