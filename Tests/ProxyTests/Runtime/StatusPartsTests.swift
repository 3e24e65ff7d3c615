import FoundationEssentials
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite struct StatusPartsTests {
    private let group = MultiThreadedEventLoopGroup.singleton
    private let patience = TimeAmount.minutes(1)

    private func peer(_ number: Int, _ allowedIPs: [String]) -> Status.Peer {
        Status.Peer(
            publicKey: "PEER\(number)", endpoint: "192.0.2.1:\(number)", allowedIPs: allowedIPs, latestHandshake: number, receivedBytes: 1,
            sentBytes: 2, persistentKeepalive: 25, hasSession: true, handshakes: ["initiations sent": 1, "sessions": 2])
    }

    private func status(peers: [Status.Peer], routes: Int = 0, certificates: Int? = nil) -> Status {
        var status = Status(
            role: "gateway", version: "1", processID: 7, startedAt: 1000, now: 1090,
            interface: .init(publicKey: "KEY", addresses: ["10.1.0.254/24"], listenPort: 51820, mtu: 1420), peers: peers,
            routes: (0..<routes).map { .init(domain: "a\($0).example.com", target: "10.1.0.2:80", enabled: true) },
            listeners: [.init(kind: "https", address: "[::]:443")], counters: ["wireguard replayed": 3])
        let entry = Data(#"{"name":"a.example.com","state":"valid","names":[],"failures":0,"isOverdue":false,"notAfter":1}"#.utf8)
        let certificate = try? JSONDecoder().decode(CertificateList.Entry.self, from: entry)
        status.certificates = certificates.map { count in certificate.map { Array(repeating: $0, count: count) } ?? [] }
        return status
    }

    private func joined(_ status: Status) throws -> Status? {
        var collector = Status.Collector()
        for part in status.parts { try collector.add(Array(JSONEncoder().encode(part))) }
        return collector.status
    }

    @Test("parts are small, and joined they are the whole, whatever a peer or a gateway has much of")
    func parts() throws {
        let long = (0..<25_000).map { "10.\($0 / 65536).\($0 / 256 % 256).\($0 % 256)/32" }
        for status in [
            status(peers: []), status(peers: [peer(1, [])], certificates: 0),
            status(peers: (0..<2_500).map { peer($0, ["10.1.0.2/32"]) }, routes: 3_001, certificates: 1_000),
            status(peers: [peer(1, []), peer(2, long), peer(3, ["10.1.0.2/32"]), peer(4, long)]),
        ] {
            #expect(try joined(status) == status)
            for part in status.parts { #expect(try JSONEncoder().encode(part).count < 1 << 20) }
        }
    }

    @Test("the whole as one is taken, too: a process of an older version")
    func whole() throws {
        let status = status(peers: [peer(1, ["10.1.0.2/32"])], routes: 1, certificates: 1)
        var collector = Status.Collector()
        try collector.add(Array(JSONEncoder().encode(status)))
        #expect(collector.status == status)
    }

    @Test("metrics are cut at line ends")
    func metrics() throws {
        var text = MetricsText()
        text.family("x", .counter, "X.")
        for number in 0..<20_000 { text.sample("x", [("peer", "abcdefghijklmnopqrstuvwxyz\(number)")], 1) }
        let parts = Array(text.parts)
        #expect(parts.count >= 3 && parts.map(\.metrics).joined() == text.text && parts.allSatisfy { $0.metrics.last == "\n" })
        #expect(Array(MetricsText().parts).isEmpty)
    }

    // MARK: The socket

    @Test("a gateway with so many peers that their JSON is more than an answer may have is told of whole")
    func large() async throws {
        let temporary = TemporaryDirectory()
        let prefixes = Array(repeating: "fd00:1234:5678:9abc:def0:1234:5678:9abc/128", count: 12)
        let status = status(peers: (0..<30_000).map { peer($0, prefixes) })
        let socket = try await AdminSocket.start(path: temporary.file("s"), group: group, timeLimit: patience)
        socket.registerStream("status") { _, stream in try await stream.answer(status.parts) }
        var (collector, bytes) = (Status.Collector(), 0)
        try await AdminClient.ask(AdminRequest(verb: "status"), at: temporary.file("s"), group: group, timeLimit: patience) { part in
            bytes += part.count
            try collector.add(part)
        }
        #expect(bytes > AdminClient.maximumAnswer && collector.status == status)
        await socket.close()
    }

    @Test("an answer that breaks off is a fault, and so is what the verb throws")
    func brokenOff() async throws {
        let temporary = TemporaryDirectory()
        let socket = try await AdminSocket.start(path: temporary.file("s"), group: group, timeLimit: patience)
        socket.registerStream("fault") { _, _ in throw AdminFault(error: "no") }
        socket.registerStream("early") { _, stream in
            stream.write(Array("{\"parts\":1}\n{}\n".utf8))
            stream.finish()
        }
        socket.register("whole") { _ in Array("{\"whole\":1}".utf8) }
        func ask(_ verb: String) async throws -> [String] {
            var parts: [String] = []
            try await AdminClient.ask(AdminRequest(verb: verb), at: temporary.file("s"), group: group, timeLimit: patience) {
                parts.append(String(decoding: $0, as: UTF8.self))
            }
            return parts
        }
        await #expect(throws: AdminFault(error: "no")) { try await ask("fault") }
        let error = await #expect(throws: AdminFault.self) { try await ask("early") }
        #expect(error?.error.hasPrefix("the answer has broken off") == true)
        #expect(try await ask("whole") == [#"{"whole":1}"#])
        await socket.close()
    }
}
