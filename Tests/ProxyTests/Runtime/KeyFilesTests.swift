import Inet
import Noise
import Proxy
import Testing
import WGUserspace

@Suite struct KeyFilesTests {
    private let temporary = TemporaryDirectory()

    @Test("a key file is one line of base64, mode 0600, and is never overwritten")
    func generate() throws {
        let path = temporary.file("wireguard.key")
        let publicKey = try KeyFiles.generate(to: path, random: .seeded(1))
        let bytes = try SystemFiles.read(path).bytes
        #expect(bytes.count == 45)
        #expect(bytes.last == 0x0A)
        #expect(KeyFiles.publicKey(ofContents: bytes) == publicKey)
        #expect(TemporaryDirectory.mode(path) == 0o600)
        #expect(throws: FileError(path: path, problem: .exists)) { try KeyFiles.generate(to: path, random: .seeded(2)) }
        #expect(try SystemFiles.read(path).bytes == bytes)
    }

    @Test("blanks around a key are accepted, anything else is not a key")
    func contents() {
        let key = Fixture.gatewayKey
        #expect(KeyFiles.publicKey(ofContents: Array(" \t\(key)\r\n\n".utf8)) == KeyFiles.publicKey(ofContents: Array(key.utf8)))
        for text in ["", "\n", "x", String(key.dropLast()), key + "x", "\(key)\n\(key)"] {
            #expect(KeyFiles.publicKey(ofContents: Array(text.utf8)) == nil)
        }
        #expect(KeyFiles.publicKey(ofContents: [0xFF, 0xFE]) == nil)
    }

    @Test("init's files match each other and are accepted by both roles")
    func tunnelFiles() throws {
        let endpoint = try #require(WGQuickFile.Endpoint("vpn.example.com:4500"))
        let files = TunnelFiles(endpoint: endpoint, random: .seeded(3))
        let gateway = try WGQuickFile(Array(files.gateway.utf8).span.bytes)
        let agent = try WGQuickFile(Array(files.agent.utf8).span.bytes)
        #expect(gateway.warnings.isEmpty && agent.warnings.isEmpty)
        #expect(gateway.peers.map(\.publicKey) == [agent.privateKey?.key.publicKey])
        #expect(agent.peers.map(\.publicKey) == [gateway.privateKey?.key.publicKey])
        #expect(gateway.peers.first?.presharedKey?.key.base64ForFile() == agent.peers.first?.presharedKey?.key.base64ForFile())
        #expect(gateway.listenPort == 4500)
        #expect(agent.peers.first?.endpoint == endpoint)
        #expect(agent.peers.first?.persistentKeepalive == .seconds(25))
        let given = ["gateway.conf": files.gateway, "agent.conf": files.agent]
        let gatewayResult = Fixture.gateway(
            Fixture.input(["wg": ["gateway.conf"], "route": ["a.b=\(TunnelFiles.agentAddress)"]], files: given))
        #expect(gatewayResult.faults + gatewayResult.warnings == [])
        let agentResult = Fixture.agent(Fixture.input(["wg": ["agent.conf"], "target": ["127.0.0.1:8080"]], files: given))
        #expect(agentResult.faults + agentResult.warnings == [])
    }

    @Test("init writes both files or none")
    func bothOrNone() throws {
        let endpoint = try #require(WGQuickFile.Endpoint("192.0.2.1:4500"))
        let files = TunnelFiles(endpoint: endpoint, random: .seeded(4))
        try SystemFiles.create(temporary.file("agent.conf"), [1])
        #expect(throws: FileError(path: temporary.file("agent.conf"), problem: .exists)) { try files.write(to: temporary.path) }
        #expect(!SystemFiles.exists(temporary.file("gateway.conf")))
        SystemFiles.remove(temporary.file("agent.conf"))
        _ = try files.write(to: temporary.path)
        #expect(TemporaryDirectory.mode(temporary.file("gateway.conf")) == 0o600)
        #expect(throws: FileError.self) { try files.write(to: temporary.path) }
        #expect(try SystemFiles.read(temporary.file("gateway.conf")).bytes == Array(files.gateway.utf8))
    }
}
