import Inet
import Proxy
import Testing

@Suite struct AgentConfigurationTests {
    @Test("the one-line form sends every host to one target")
    func oneLine() throws {
        let (configuration, faults, warnings) = Fixture.agent(Fixture.input(["wg": ["a.conf"], "target": ["127.0.0.1:8080"]]))
        #expect(faults == [])
        #expect(warnings == [])
        let agent = try #require(configuration)
        let target = try #require(UpstreamTarget("127.0.0.1:8080"))
        #expect(agent.targets == LocalTargets(all: target))
        #expect(agent.listenPort == 80)
        #expect(agent.interface.listenPort == 0)
        #expect(agent.common.stateDirectory == "/home/me/.local/state/kakuremichi/agent")
    }

    @Test("the full form sends each host to its own target")
    func fullForm() throws {
        let toml = """
            target = "localhost:1"
            host = "target"
            listen-port = 8000
            [wireguard]
            config = "a.conf"
            [[tunnel]]
            domain = "A.example.com"
            target = "app:3000"
            host = "public"
            [[tunnel]]
            domain = "b.example.com"
            target = "[::1]:3001"
            enabled = false
            """
        let agent = try #require(Fixture.agent(Fixture.input(files: ["agent.toml": toml])).configuration)
        #expect(agent.targets.all.map(\.domain) == ["*", "a.example.com", "b.example.com"])
        #expect(agent.targets.all.map { "\($0.target)" } == ["localhost:1", "app:3000", "[::1]:3001"])
        #expect(agent.targets.all.map(\.host) == [.target, .asReceived, .target])
        #expect(agent.targets.all.map(\.enabled) == [true, true, false])
        #expect(agent.listenPort == 8000)
    }

    @Test(
        "bad targets say what to write",
        arguments: [
            ("http://localhost:8080", "without http://"), ("localhost", "HOST:PORT"), ("localhost:0", "HOST:PORT"), ("::1:80", "HOST:PORT"),
            ("a b:1", "HOST:PORT"),
        ])
    func badTargets(target: String, fix: String) {
        let faults = Fixture.agent(Fixture.input(["wg": ["a.conf"], "target": [target]])).faults
        #expect(faults.count == 1)
        #expect(faults.first?.contains(fix) == true)
    }

    @Test("no target, two targets, and ports out of range are errors")
    func targetsAndPorts() {
        #expect(Fixture.agent(Fixture.input(["wg": ["a.conf"]])).faults.first?.contains("--target HOST:PORT") == true)
        #expect(Fixture.agent(Fixture.input(["wg": ["a.conf"], "target": ["a:1", "b:2"]])).faults.count == 1)
        for port in ["0", "65536", "x", "99999999999999999999"] {
            #expect(Fixture.agent(Fixture.input(["wg": ["a.conf"], "target": ["a:1"], "listen-port": [port]])).faults.count == 1)
        }
    }

    @Test("the private key of the environment wins over the file's and is never shown")
    func environmentKey() throws {
        var environment = ["HOME": "/h", "WIREGUARD_PRIVATE_KEY": Fixture.presharedKey]
        let flags = ["wg": ["a.conf"], "target": ["a:1"]]
        let agent = try #require(Fixture.agent(Fixture.input(flags, environment: environment)).configuration)
        #expect(agent.interface.privateKey.key.publicKey == KeyFiles.publicKey(ofContents: Array(Fixture.presharedKey.utf8)))
        environment["WIREGUARD_PRIVATE_KEY"] = String(Fixture.presharedKey.dropLast(2))
        let faults = Fixture.agent(Fixture.input(flags, environment: environment)).faults
        #expect(faults.count == 1)
        #expect(faults.first?.contains(Fixture.presharedKey.prefix(10)) == false)
        let byFlag = Fixture.agent(Fixture.input(flags.merging(["wireguard-private-key": [Fixture.agentKey]]) { first, _ in first }))
        #expect(byFlag.warnings.contains { $0.contains("list of processes") })
    }

    @Test("the gateway's settings mean nothing to the agent")
    func foreignSettings() throws {
        let environment = ["HOME": "/h", "HTTP_PORT": "x", "WIREGUARD_PORT": "x", "WIREGUARD_KEY_FILE": "/none"]
        #expect(Fixture.agent(Fixture.input(["wg": ["a.conf"], "target": ["a:1"]], environment: environment)).faults == [])
    }

    @Test("without an endpoint the agent is told that it waits")
    func noEndpoint() {
        let file =
            "[Interface]\nPrivateKey=\(Fixture.agentKey)\nAddress=10.1.0.2/24\n[Peer]\nPublicKey=\(Fixture.gatewayKey)\nAllowedIPs=10.1.0.254/32\n"
        let result = Fixture.agent(Fixture.input(["wg": ["a.conf"], "target": ["a:1"]], files: ["a.conf": file]))
        #expect(result.faults.isEmpty)
        #expect(result.warnings.contains { $0.contains("Endpoint") })
    }

    @Test("missing keys and addresses of the interface are errors with the next step")
    func incompleteInterface() {
        let result = Fixture.agent(Fixture.input(["wg": ["a.conf"], "target": ["a:1"]], files: ["a.conf": "# agent\n[Interface]\n"]))
        #expect(result.faults.count == 2)
        #expect(result.faults.contains { $0.hasPrefix("a.conf:2:1: Address: ") })
        #expect(result.faults.contains { $0.hasPrefix("a.conf:2:1: PrivateKey: ") && $0.contains("kakuremichi keys") })
    }

    @Test("mutilated TOML files never trap")
    func mutilated() {
        let seed: UInt64 = 0x5EED_0004
        let random = RandomSource.seeded(seed)
        let base = Array(
            "target = 'a:1'\nlisten-port = 80\n[wireguard]\nconfig='a.conf'\n[[tunnel]]\ndomain='a.b'\ntarget='c:2'\n[[wireguard.peer]]\n"
                .utf8)
        for _ in 0..<1000 {
            var bytes = base
            for _ in 0...random.next(below: 4) {
                let (from, to) = (Int(random.next(below: UInt64(base.count))), Int(random.next(below: UInt64(base.count))))
                bytes[from] = base[to]
            }
            let result = Fixture.agent(Fixture.input(files: ["agent.toml": String(decoding: bytes, as: UTF8.self)]))
            #expect(result.configuration != nil || !result.faults.isEmpty, "seed \(seed)")
        }
    }
}
