import FoundationEssentials
import Inet
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import Proxy
import TCPStack
import Testing
import WGUserspace

@Suite(.timeLimit(.minutes(1))) struct ConnectionListTests {
    /// One connection, dialled to a peer that does not answer.
    private func connection() async throws -> ConnectionList.Connection {
        let peer = PrivateKey.generate(using: .seeded(1)).publicKey
        let configuration = InterfaceConfiguration(
            privateKey: StoredPrivateKey(PrivateKey.generate(using: .seeded(2))),
            addresses: [try #require(InterfaceAddress("10.1.0.1/24"))],
            peers: [.init(publicKey: peer, allowedIPs: [try #require(IPPrefix("10.1.0.2/32"))])])
        let interface = try await WireGuardInterface.start(configuration, on: MultiThreadedEventLoopGroup.singleton.next()).get()
        let dialled = interface.connect(to: try #require(SocketEndpoint("10.1.0.2:80"))) { $0.eventLoop.makeSucceededVoidFuture() }
        let (connections, more) = try await interface.connections(limit: 5).get()
        #expect(connections.count == 1 && more == 0 && connections[0].peer == peer)
        #expect(try await interface.connections(limit: 0).get().more == 1)
        let shown = ConnectionList.Connection(try #require(connections.first))
        try await interface.close().get()
        _ = try? await dialled.get()
        return shown
    }

    @Test("what is not known yet shows as a dash, and the rest is counted")
    func text() async throws {
        let connection = try await connection()
        #expect(connection.state == "SYN-SENT" && connection.direction == "out" && connection.srtt == nil && connection.ssthresh == nil)
        let list = ConnectionList(role: "gateway", processID: 7, connections: [connection], more: 3)
        #expect(list.text.hasPrefix("gateway, process 7: 4 TCP connections in the tunnel\n\nSYN-SENT  10.1.0.1:"))
        #expect(list.text.contains(" -> 10.1.0.2:80 ") && list.text.contains("rtt -, least -") && list.text.contains("ssthresh -"))
        #expect(list.text.hasSuffix("3 more, for which less waits\n"))
    }

    @Test("the longest list fits into an answer of the admin socket")
    func size() async throws {
        var connection = try await connection()
        connection.local = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
        connection.remote = connection.local
        connection.srtt = 0.123456789
        connection.minimumRTT = 0.123456789
        connection.ssthresh = 1 << 30
        connection.bytesSent = .max
        connection.bytesReceived = .max
        let list = ConnectionList(
            role: "gateway", processID: 7, connections: [ConnectionList.Connection](repeating: connection, count: ConnectionList.limit),
            more: 1)
        let bytes = try JSONEncoder().encode(list)
        #expect(bytes.count < AdminClient.maximumAnswer * 3 / 4)
        #expect(try JSONDecoder().decode(ConnectionList.self, from: bytes) == list)
    }
}
