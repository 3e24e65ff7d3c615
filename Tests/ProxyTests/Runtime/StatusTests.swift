import FoundationEssentials
import Proxy
import Testing

@Suite struct StatusTests {
    private let status = Status(
        role: "gateway", version: "1", processID: 7, startedAt: 1000, now: 1090,
        interface: .init(publicKey: "KEY", addresses: ["10.1.0.254/24"], listenPort: 51820, mtu: 1420),
        peers: [
            .init(
                publicKey: "PEER1", endpoint: "192.0.2.1:7", allowedIPs: ["10.1.0.2/32"], latestHandshake: 1085, receivedBytes: 1536,
                sentBytes: 10,
                persistentKeepalive: 25, hasSession: true),
            .init(
                publicKey: "PEER2", endpoint: nil, allowedIPs: [], latestHandshake: nil, receivedBytes: 0, sentBytes: 0,
                persistentKeepalive: nil,
                hasSession: false),
        ], routes: [.init(domain: "app.example.com", target: "10.1.0.2:80", enabled: true)],
        listeners: [.init(kind: "https", address: "[::]:443")],
        counters: ["wireguard replayed": 3])

    @Test("it survives JSON")
    func json() throws {
        #expect(try JSONDecoder().decode(Status.self, from: JSONEncoder().encode(status)) == status)
    }

    @Test("the table shows peers, handshakes, routes and listeners")
    func table() {
        let lines = status.table.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        #expect(lines.contains("gateway 1, process 7, up 1 min 30 s"))
        #expect(lines.contains { $0.hasPrefix("PEER1  192.0.2.1:7  5 s ago         1.5 KiB   10 B") })
        #expect(lines.contains { $0.hasPrefix("PEER2  unknown      never") })
        #expect(lines.contains { $0.hasPrefix("app.example.com  10.1.0.2:80  enabled") })
        #expect(lines.contains { $0.hasPrefix("https     [::]:443") })
        #expect(lines.allSatisfy { $0.last != " " })
    }
}
