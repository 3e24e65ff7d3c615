import Inet
import TCPStack
import TestSupport
import Testing

/// Two stacks over a seeded path.
@Suite struct TwoStacksTests {
    @Test("a request and its answer cross a perfect path and leave nothing behind", arguments: [IPAddress.Family.v4, .v6])
    func requestAndAnswer(family: IPAddress.Family) {
        var scenario = Self.scenario(seed: 1, family: family, connections: 1, bytes: 0)
        scenario.client.bytes = 100
        scenario.server.bytes = 1000
        #expect(scenario.run() == nil)
    }

    @Test("1 MB each way on ten connections crosses a bad path, and every table is empty at the end", arguments: Self.paths)
    func lossyPath(path: SimulatedPath.Quality, family: IPAddress.Family, algorithm: CongestionAlgorithm) {
        var scenario = Self.scenario(seed: UInt64.random(in: 0...UInt64.max), family: family, connections: 10, bytes: 1_000_000)
        scenario.path = path
        scenario.configuration.congestion = algorithm
        // At 20 % loss, eight copies in a row are lost now and then.
        if path.loss > 0.1 { scenario.configuration.userTimeout = .seconds(2000) }
        let fault = scenario.run()
        #expect(fault == nil, "seed \(scenario.seed)")
    }

    static let paths: [(SimulatedPath.Quality, IPAddress.Family, CongestionAlgorithm)] = [
        (quality { _ in }, .v4, .cubic),
        (quality { ($0.loss, $0.reorder, $0.duplicate, $0.corrupt, $0.jitter) = (0.05, 0.05, 0.02, 0.01, .milliseconds(2)) }, .v4, .cubic),
        (quality { ($0.loss, $0.delay) = (0.2, .milliseconds(2)) }, .v6, .newReno),
        (quality { ($0.reorder, $0.duplicate, $0.jitter) = (0.3, 0.3, .milliseconds(5)) }, .v6, .cubic),
    ]

    private static func quality(_ body: (inout SimulatedPath.Quality) -> Void) -> SimulatedPath.Quality {
        var quality = SimulatedPath.Quality()
        body(&quality)
        return quality
    }

    @Test("100 connections with small buffers and a reader with pauses survive 5 % loss") func manyConnections() {
        var scenario = Self.scenario(seed: UInt64.random(in: 0...UInt64.max), family: .v4, connections: 100, bytes: 50_000)
        scenario.configuration.receiveBufferInitial = 8192
        scenario.configuration.receiveBufferMaximum = 32_768
        scenario.configuration.sendBufferMaximum = 16_384
        scenario.path = Self.paths[1].0
        scenario.client.reading = .slow(bytes: 32_768, every: .milliseconds(700))
        scenario.server.reading = .slow(bytes: 32_768, every: .milliseconds(700))
        let fault = scenario.run()
        #expect(fault == nil, "seed \(scenario.seed)")
    }

    /// The same plan on all connections.
    private struct Scenario {
        var seed: UInt64
        var family: IPAddress.Family
        var connections: Int
        var client: ApplicationPlan
        var server: ApplicationPlan
        var path = SimulatedPath.Quality()
        var configuration = StackConfiguration()

        func run() -> String? {
            let simulation = StackSimulation(
                family: family, upstream: path, downstream: path, seed: seed, client: configuration, server: configuration)
            for _ in 0..<connections { simulation.add(client: client, server: server) }
            guard simulation.run(until: .seconds(3000)) else { return simulation.violation ?? "not through" }
            for conversation in simulation.conversations {
                for application in [conversation.client, conversation.server]
                where !application.isComplete || application.reason != .finished { return "\(application)" }
            }
            return simulation.remains == 0 ? nil : "\(simulation.remains) entries and bytes are left"
        }
    }

    private static func scenario(seed: UInt64, family: IPAddress.Family, connections: Int, bytes: Int) -> Scenario {
        Scenario(
            seed: seed, family: family, connections: connections, client: ApplicationPlan(bytes: bytes),
            server: ApplicationPlan(bytes: bytes))
    }
}
