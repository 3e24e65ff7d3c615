import Inet
import TCPStack
import TestSupport
import Testing
import WGUserspace

/// Whole tunnels in virtual time: two devices, two stacks, a bad link.
@Suite struct TunnelSimulationTests {
    @Test("100 connections move 1 MB each way over a lossy, reordering, duplicating, corrupting link", arguments: [1, 2, 3] as [UInt64])
    func manyTransfers(seed: UInt64) throws {
        var quality = SimulatedLink.Quality()
        quality.loss = 0.05
        quality.reordering = 0.05
        quality.duplication = 0.02
        quality.corruption = 0.01
        quality.jitter = .milliseconds(3)
        let size = 1_000_000
        let nodes = TwoNodes(seed: seed, quality: quality)
        let exchange = try Exchange(nodes, connections: 100, bytesEachWay: size)
        let finished = nodes.run(for: .seconds(3_600)) { exchange.isFinished }
        #expect(finished, "seed \(seed): \(exchange.summary)")
        for transfer in exchange.all {
            #expect(transfer.mismatch == nil, "seed \(seed): wrong byte at \(transfer.mismatch ?? -1)")
            #expect(transfer.received == size && transfer.sent == size, "seed \(seed): \(transfer.received) of \(size)")
            #expect(transfer.closeReason == .finished, "seed \(seed)")
        }
        nodes.run(for: .seconds(180))
        for node in [nodes.gateway, nodes.agent] {
            let counts = node.core.stack.counts
            #expect(counts.connections == 0 && counts.timeWait == 0 && counts.bufferedBytes == 0, "seed \(seed): \(counts)")
        }
    }

    @Test("a session that carries traffic for 24 hours re-keys on time and never loses a byte")
    func aDayOfTraffic() throws {
        let nodes = TwoNodes(seed: 24)
        let exchange = try Exchange(nodes, connections: 1, bytesEachWay: 0, keepsOpen: true)
        nodes.run(for: .seconds(5)) { exchange.isConnected }
        #expect(exchange.isConnected)
        var sent = 0
        for _ in 0..<(24 * 60 * 6) {
            sent += exchange.push(100)
            nodes.run(for: .seconds(10))
        }
        nodes.run(for: .seconds(5))
        #expect(exchange.received == sent)
        #expect(exchange.all.allSatisfy { $0.mismatch == nil })
        let sessions = nodes.agent.deviceEvents.filter { if case .sessionEstablished = $0 { true } else { false } }.count
        // One each REKEY_AFTER_TIME of 120 s; traffic every 10 s may ask up to 10 s late.
        #expect((24 * 3600 / 131...24 * 3600 / 119).contains(sessions), "\(sessions) sessions in a day")
    }

    @Test("an agent that restarts with a new port is back with its first packet")
    func agentRestart() throws {
        let nodes = TwoNodes(seed: 5)
        let first = try Exchange(nodes, connections: 1, bytesEachWay: 1_000)
        #expect(nodes.run(for: .seconds(10)) { first.isFinished })
        nodes.restartAgent(at: "192.0.2.10:40001")
        // One round trip: the initiation, which its persistent keepalive sends at once, and the response.
        let peer = try #require(nodes.agent.core.device.peerIDs.first)
        #expect(nodes.run(for: .milliseconds(50)) { nodes.agent.core.device.status(of: peer)?.hasSession ?? false })
        // Its first data packet confirms the key to the gateway.
        nodes.run(for: .milliseconds(15))
        let before = nodes.now
        let second = try Exchange(nodes, connections: 1, bytesEachWay: 1_000)
        #expect(nodes.run(for: .seconds(10)) { second.isFinished }, "\(second.summary)")
        #expect(nodes.now - before < .milliseconds(500))
    }

    @Test("a gateway that restarts with the stored endpoint reaches its agent within seconds")
    func gatewayRestart() throws {
        let nodes = TwoNodes(seed: 6)
        let first = try Exchange(nodes, connections: 1, bytesEachWay: 1_000)
        #expect(nodes.run(for: .seconds(10)) { first.isFinished })
        first.stopListening()
        nodes.restartGateway()
        let peer = try #require(nodes.gateway.core.device.peerIDs.first)
        nodes.gateway.core.device.setEndpoint(nodes.agent.endpoint, of: peer, now: nodes.now)
        nodes.gateway.core.device.initiateHandshake(with: peer, now: nodes.now)
        let before = nodes.now
        let second = try Exchange(nodes, connections: 1, bytesEachWay: 1_000)
        #expect(nodes.run(for: .seconds(35)) { second.isFinished }, "\(second.summary)")
        #expect(nodes.now - before < .seconds(5))
    }

    @Test("a gateway that restarts without a stored endpoint is reached again within 35 s by the agent's probe")
    func gatewayRestartByProbe() throws {
        let nodes = TwoNodes(seed: 7)
        let first = try Exchange(nodes, connections: 1, bytesEachWay: 1_000)
        #expect(nodes.run(for: .seconds(10)) { first.isFinished })
        nodes.restartGateway()
        let before = nodes.now
        var options = ConnectionOptions()
        options.connectTimeout = .seconds(2)
        // The agent's probe: a TCP connect to the gateway's virtual address, port 80, every 15 s.
        let key = try #require(nodes.gateway.core.device.peerIDs.first)
        var isBack = false
        for _ in 0..<3 where !isBack {
            _ = try nodes.agent.core.stack.connect(
                from: nodes.agent.address, to: SocketEndpoint(nodes.gateway.address, port: 80), options: options, now: nodes.now)
            isBack = nodes.run(for: .seconds(15)) { nodes.gateway.core.device.status(of: key)?.hasSession ?? false }
        }
        #expect(isBack)
        #expect(nodes.now - before <= .seconds(35))
    }
}

/// Connections from gateway to agent, with a `Transfer` on both ends.
final class Exchange {
    private(set) var clients: [Transfer] = []
    private(set) var servers: [Transfer] = []
    private let nodes: TwoNodes
    private let expected: Int

    init(_ nodes: TwoNodes, connections: Int, bytesEachWay: Int, keepsOpen: Bool = false) throws {
        self.nodes = nodes
        expected = connections
        let total = keepsOpen ? Int.max : bytesEachWay
        let port = UInt16(80)
        let listener = try nodes.agent.core.stack.listen(address: nil, port: port, backlog: 256, options: ConnectionOptions())
        let clock = { nodes.now }
        let (agent, gateway) = (nodes.agent, nodes.gateway)
        agent.onEvent = { [unowned self] event in
            if case .accepted(_, let id) = event {
                // Which client it is says the remote port.
                guard let remote = agent.core.stack.endpoints(of: id)?.remote,
                    let index = clients.firstIndex(where: { gateway.core.stack.endpoints(of: $0.id)?.local.port == remote.port })
                else { return }
                let transfer = Transfer(
                    node: agent, id: id, total: keepsOpen ? 0 : total, seed: UInt64(2 * index + 1), peerSeed: UInt64(2 * index),
                    clock: clock)
                servers.append(transfer)
                if !keepsOpen { transfer.fill() }
            } else {
                servers.first { $0.id == event.connection }?.handle(event)
            }
        }
        gateway.onEvent = { [unowned self] event in
            if keepsOpen, case .connected = event {
                isConnected = true
                return
            }
            if keepsOpen, case .writable = event { return }
            clients.first { $0.id == event.connection }?.handle(event)
        }
        for index in 0..<connections {
            let id = try gateway.core.stack.connect(
                from: gateway.address, to: SocketEndpoint(agent.address, port: port), options: ConnectionOptions(), now: nodes.now)
            clients.append(
                Transfer(node: gateway, id: id, total: total, seed: UInt64(2 * index), peerSeed: UInt64(2 * index + 1), clock: clock))
        }
        closeListener = { agent.core.stack.closeListener(listener, now: nodes.now) }
    }

    deinit { closeListener() }

    func stopListening() {
        closeListener()
        closeListener = {}
    }

    private var closeListener: () -> Void = {}
    private(set) var isConnected = false
    private var pushed = 0

    var all: [Transfer] { clients + servers }
    var received: Int { servers.reduce(0) { $0 + $1.received } }
    var isFinished: Bool { servers.count == expected && all.allSatisfy(\.isClosed) }
    var summary: String {
        let open = all.filter { !$0.isClosed }
        return "\(servers.count) accepted, \(open.count) open, first open: "
            + (open.first.map { "sent \($0.sent) received \($0.received)" } ?? "none")
    }

    /// Sends `count` more bytes on the first connection.
    func push(_ count: Int) -> Int {
        guard let client = clients.first else { return 0 }
        let chunk = (pushed..<pushed + count).map { Transfer.byte(at: $0, seed: client.seed) }
        let accepted = (try? nodes.gateway.core.stack.write(client.id, chunk.span.bytes, now: nodes.now)) ?? 0
        pushed += accepted
        return accepted
    }
}

extension StackEvent {
    var connection: ConnectionID? {
        switch self {
        case .connected(let id), .accepted(_, let id), .readable(let id), .writable(let id), .inputClosed(let id),
            .inputReset(let id), .urgent(let id), .closed(let id, _):
            id
        case .datagrams, .udpWritable, .udpError, .udpClosed: nil
        }
    }
}
