import Inet
import NIOCore
import Proxy
import Testing

@Suite struct LimitSettingsTests {
    private func gateway(_ table: String) -> (configuration: GatewayConfiguration?, faults: [String], warnings: [String]) {
        Fixture.gateway(Fixture.input(["wg": ["g.conf"], "config": ["g.toml"], "route": ["a.test=10.1.0.2"]], files: ["g.toml": table]))
    }

    private func agent(_ table: String) -> (configuration: AgentConfiguration?, faults: [String], warnings: [String]) {
        Fixture.agent(Fixture.input(["wg": ["a.conf"], "config": ["a.toml"], "target": ["t:1"]], files: ["a.toml": table]))
    }

    @Test("without a table the limits are those of the role")
    func standard() throws {
        let limits = try #require(gateway("").configuration?.limits)
        #expect(limits == LimitSettings(proxy: ProxyLimits()))
        #expect(limits.proxy.minimumBodyRate == 240)
        #expect(limits.proxy.requestsInFlightPerClient == 1024)
        let agent = try #require(agent("").configuration?.limits)
        #expect(agent == .agent)
        #expect(agent.requestsPerConnection == .max)
    }

    @Test("every key sets its limit; sizes and durations have units")
    func everyKey() throws {
        let table = """
            [limits]
            header-timeout = "5s"
            body-idle-timeout = "2m"
            minimum-body-rate = "1KiB"
            body-rate-grace = "1h"
            connect-timeout = "1500ms"
            response-timeout = "5m"
            keep-alive-timeout = "30s"
            pool-idle-timeout = "20s"
            linger-timeout = "1s"
            upgraded-idle-timeout = "10m"
            clock-interval = "100ms"
            request-line-size = 8192
            header-field-size = "32KiB"
            header-list-size = "1MiB"
            header-field-count = 200
            requests-per-connection = 7
            streams-per-connection = 50
            stream-window = "64KiB"
            connection-window = "8MiB"
            pool-size-per-target = 3
            pool-size = 4
            informational-responses = 2
            requests-in-flight-per-client = 9
            retry-after = "1m"
            connections = 1000
            connections-per-client = 10
            """
        let result = gateway(table)
        #expect(result.faults == [])
        var expected = ProxyLimits()
        expected.header = .seconds(5)
        expected.bodyIdle = .minutes(2)
        expected.minimumBodyRate = 1024
        expected.bodyRateGrace = .hours(1)
        expected.connect = .milliseconds(1500)
        expected.responseHead = .minutes(5)
        expected.keepAliveIdle = .seconds(30)
        expected.poolIdle = .seconds(20)
        expected.linger = .seconds(1)
        expected.upgradedIdle = .minutes(10)
        expected.clockInterval = .milliseconds(100)
        expected.requestLineSize = 8192
        expected.headerFieldSize = 32 << 10
        expected.headerListSize = 1 << 20
        expected.headerFieldCount = 200
        expected.requestsPerConnection = 7
        expected.streamsPerConnection = 50
        expected.streamWindow = 64 << 10
        expected.connectionWindow = 8 << 20
        expected.poolIdlePerTarget = 3
        expected.poolIdleTotal = 4
        expected.informationalResponses = 2
        expected.requestsInFlightPerClient = 9
        expected.retryAfter = 60
        #expect(result.configuration?.limits == LimitSettings(proxy: expected, connections: 1000, connectionsPerClient: 10))
    }

    @Test("a limit that may be missing can be switched off")
    func off() throws {
        let table = """
            [limits]
            minimum-body-rate = "off"
            upgraded-idle-timeout = "off"
            requests-per-connection = "off"
            requests-in-flight-per-client = "off"
            """
        let limits = try #require(gateway(table).configuration?.limits.proxy)
        #expect(limits.minimumBodyRate == 0)
        #expect(limits.upgradedIdle == nil)
        #expect(limits.requestsPerConnection == .max)
        #expect(limits.requestsInFlightPerClient == .max)
    }

    @Test(
        "a bad limit is a fault with its place and what to write",
        arguments: [
            ("header-timeout = 10", "g.toml:2:18: header-timeout: an integer is given; write a string: a duration from 100ms to 1h"),
            ("header-timeout = \"10\"", "\"10\" is not valid; write a duration from 100ms to 1h, such as \"10s\" or \"500ms\""),
            ("header-timeout = \"off\"", "\"off\" is not valid; write a duration"),
            ("header-timeout = \"-1s\"", "\"-1s\" is not valid"), ("header-timeout = \"2h\"", "\"2h\" is out of range"),
            ("header-timeout = \"9223372036854775807h\"", "is not valid"), ("header-timeout = \"s\"", "is not valid"),
            ("stream-window = \"16KB\"", "g.toml:2:17: stream-window: \"16KB\" is not valid; write a size from 64KiB to 64MiB"),
            ("stream-window = 1", "1 is out of range"), ("stream-window = \"9007199254740993GiB\"", "is not valid"),
            ("header-field-count = 0", "0 is out of range; write an integer from 16 to 10000"),
            ("connections = \"off\"", "a string is given; write an integer from 16 to 1000000"),
            ("nonsense = 1", "g.toml:2:1: nonsense: no such key in [limits]; write one of header-timeout, "),
        ])
    func bad(line: String, text: String) {
        let faults = gateway("[limits]\n\(line)").faults
        #expect(faults.count == 1)
        #expect(faults.first?.contains(text) == true, "\(faults)")
    }

    @Test("what bounds a gateway's clients is no key of an agent, and limits are a table")
    func agentKeys() {
        #expect(agent("[limits]\nconnections = 100").faults.first?.contains("no such key in [limits]") == true)
        #expect(agent("limits = 1").faults == ["a.toml:1:1: limits: not a table; write [limits]"])
        #expect(agent("[limits]\nresponse-timeout = \"5m\"").configuration?.limits.responseHead == .minutes(5))
    }

    @Test("connections are cut to what the open-file limit leaves room for; one client has half of them, or what is configured")
    func connectionCaps() {
        func caps(_ limiter: ConnectionLimiter) -> [Int] { [limiter.maximum, limiter.maximumPerClient] }
        #expect(caps(ConnectionLimiter(descriptors: 1 << 20)) == [8192, 1024])
        #expect(caps(ConnectionLimiter(descriptors: 1024)) == [896, 448])
        #expect(caps(ConnectionLimiter(descriptors: 1 << 20, connections: 100_000, perClient: 50_000)) == [100_000, 50_000])
        #expect(caps(ConnectionLimiter(descriptors: 1024, connections: 100_000)) == [896, 448])
        #expect(caps(ConnectionLimiter(descriptors: 1 << 20, connections: 100)) == [100, 50])
    }
}
