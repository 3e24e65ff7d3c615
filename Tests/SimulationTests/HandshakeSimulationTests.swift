import Inet
import TCPStack
import TestSupport
import Testing
import WGUserspace

/// Handshakes of two whole nodes in virtual time: crossing ones, and under load.
@Suite struct HandshakeSimulationTests {
    @Test("initiations that cross on the way both complete, and a transfer does not stall", arguments: [1, 2, 3] as [UInt64])
    func crossing(seed: UInt64) throws {
        let nodes = TwoNodes(seed: seed)
        let (gateway, agent) = (nodes.gateway, nodes.agent)
        let (agentID, gatewayID) = (
            try #require(gateway.core.device.peerIDs.first), try #require(agent.core.device.peerIDs.first)
        )
        // The agent's keepalive has asked for a handshake already; nothing has left yet.
        gateway.core.device.setEndpoint(agent.endpoint, of: agentID, now: nodes.now)
        gateway.core.device.initiateHandshake(with: agentID, now: nodes.now)
        agent.core.device.initiateHandshake(with: gatewayID, now: nodes.now)
        let before = nodes.now
        let exchange = try Exchange(nodes, connections: 1, bytesEachWay: 100_000)
        #expect(nodes.run(for: .seconds(4)) { exchange.isFinished }, "seed \(seed): \(exchange.summary)")
        #expect(nodes.now - before < .seconds(1), "seed \(seed)")
        #expect(gateway.core.device.counters.initiationsSent == 1 && agent.core.device.counters.initiationsSent == 1)
        #expect(gateway.core.device.counters.responsesSent == 1 && agent.core.device.counters.responsesSent == 1)
        nodes.run(for: .seconds(60))
        #expect(gateway.core.device.counters.initiationsSent == 1 && agent.core.device.counters.initiationsSent == 1, "no second round")
    }

    @Test("a gateway under load asks for a cookie; the agent shows it at once and is served")
    func cookie() throws {
        let nodes = TwoNodes(seed: 11)
        let (gateway, agent) = (nodes.gateway, nodes.agent)
        let peer = try #require(agent.core.device.peerIDs.first)
        gateway.core.device.recordHandshakeWork(.milliseconds(300), now: nodes.now)
        nodes.run(for: .milliseconds(900))
        #expect(gateway.core.device.counters.cookieRepliesSent == 1 && agent.core.device.counters.cookiesReceived == 1)
        #expect(gateway.core.device.counters.responsesSent == 1, "the second one was served at once")
        let status = agent.core.device.status(of: peer, now: nodes.now)
        let isUnderLoad = gateway.core.device.isUnderLoad(now: nodes.now)
        #expect(status?.hasSession == true && isUnderLoad)
        #expect(status?.endpoint == gateway.endpoint)
        #expect(gateway.deviceEvents.first { if case .underLoad = $0 { true } else { false } } == .underLoad(true))
    }

    @Test("without load no cookie is asked for")
    func noCookie() throws {
        let nodes = TwoNodes(seed: 12)
        nodes.run(for: .seconds(1))
        #expect(nodes.gateway.core.device.counters.cookieRepliesSent == 0 && nodes.gateway.core.device.counters.responsesSent == 1)
        let isUnderLoad = nodes.gateway.core.device.isUnderLoad(now: nodes.now)
        #expect(!isUnderLoad)
    }
}
