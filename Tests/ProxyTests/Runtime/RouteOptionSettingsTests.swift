import Inet
import NIOCore
import Proxy
import Testing

@Suite struct RouteOptionSettingsTests {
    private func gateway(_ keys: String) -> (configuration: GatewayConfiguration?, faults: [String], warnings: [String]) {
        let toml = "[wireguard]\nconfig = \"g.conf\"\n[[tunnel]]\ndomain = \"a.test\"\nagent = \"10.1.0.2\"\n\(keys)\n"
        return Fixture.gateway(Fixture.input(["config": ["g.toml"]], files: ["g.toml": toml]))
    }

    @Test("a route speaks HTTP/1.1 and takes WebSockets unless it says otherwise")
    func standard() throws {
        let options = try #require(gateway("").configuration?.routes.first?.options)
        #expect(options == RouteOptions())
        #expect(options.upstreamProtocol == .http1)
        #expect(options.upgrades == ["websocket"])
        #expect(options.responseTimeout.amount(inherited: .seconds(60)) == .seconds(60))
    }

    @Test("a route of the gateway has its own protocol, timeouts and upgrades")
    func gatewayKeys() throws {
        let result = gateway("protocol = \"h2c\"\nresponse-timeout = \"5m\"\nupgrade = [\"WebSocket\", \"x/1\"]\nidle-timeout = \"1h\"")
        #expect(result.faults == [])
        let options = try #require(result.configuration?.routes.first?.options)
        #expect(options.upstreamProtocol == .h2c)
        #expect(options.responseTimeout.amount(inherited: .seconds(60)) == .minutes(5))
        #expect(options.upgrades == ["websocket", "x/1"])
        #expect(options.upgradedIdle == .hours(1))
        let summary = try #require(result.configuration?.summary)
        #expect(summary.contains("(h2c; response timeout 5m; upgrades to websocket, x/1; idle timeout 1h)"))
        let none = try #require(gateway("response-timeout = \"off\"\nupgrade = []").configuration?.routes.first?.options)
        #expect(none.responseTimeout.amount(inherited: .seconds(60)) == nil)
        #expect(none.upgrades == [])
    }

    @Test("a target of the agent has them too, from its table, else from the file, else from the flag for the protocol")
    func agentKeys() throws {
        let toml = """
            target = "t:1"
            response-timeout = "2m"
            upgrade = []
            [wireguard]
            config = "a.conf"
            [[tunnel]]
            domain = "a.test"
            target = "t:2"
            protocol = "http1"
            upgrade = "websocket"
            """
        let input = Fixture.input(["config": ["a.toml"], "protocol": ["h2c"]], files: ["a.toml": toml])
        let targets = try #require(Fixture.agent(input).configuration?.targets)
        #expect(targets.catchAll?.options.upstreamProtocol == .h2c)
        #expect(targets.catchAll?.options.upgrades == [])
        #expect(targets.entries.first?.options.upstreamProtocol == .http1)
        #expect(targets.entries.first?.options.responseTimeout == .after(.minutes(2)))
        #expect(targets.entries.first?.options.upgrades == ["websocket"])
    }

    @Test(
        "bad options say what to write",
        arguments: [
            ("protocol = \"http2\"", "g.toml:6:12: protocol: \"http2\" is not known; write http1, or h2c"),
            ("response-timeout = 5", "an integer is given; write a string: a duration"),
            ("upgrade = [\"h2c\"]", "g.toml:6:12: upgrade: an upgrade to \"h2c\" would lead past the proxy"),
            ("upgrade = \"TLS/1.0\"", "lead past the proxy"), ("upgrade = [\"a b\"]", "is not a protocol's name"),
            ("upgrade = [\"\"]", "is empty"), ("idle-timeout = \"off\"", "write a duration from 1s to 24h"),
        ])
    func bad(line: String, text: String) {
        let faults = gateway(line).faults
        #expect(faults.count == 1)
        #expect(faults.first?.contains(text) == true, "\(faults)")
    }

    @Test("connections of different protocols are of different targets")
    func poolKey() {
        func target(_ choice: UpstreamProtocol) -> UpstreamTarget {
            var options = RouteOptions()
            options.upstreamProtocol = choice
            return Route(domain: "a.test", target: UpstreamTarget(address: IPAddress(v4: 10, 1, 0, 2), port: 80), options: options).target
        }
        #expect(target(.http1) != target(.h2c))
        #expect(Set([target(.http1), target(.h2c), target(.h2c)]).count == 2)
    }

    @Test("trusted proxies are address blocks, of the flag or of the file")
    func trustedProxies() throws {
        let file = ["g.toml": "trusted-proxies = [\"192.0.2.0/24\", \"2001:db8::1\"]\n[wireguard]\nconfig = \"g.conf\"\n"]
        let byFile = Fixture.gateway(Fixture.input(["config": ["g.toml"]], files: file))
        #expect(byFile.configuration?.trustedProxies.map(\.description) == ["192.0.2.0/24", "2001:db8::1/128"])
        let byFlag = Fixture.gateway(Fixture.input(["config": ["g.toml"], "trusted-proxy": ["10.0.0.1", "0.0.0.0/0"]], files: file))
        #expect(byFlag.configuration?.trustedProxies.map(\.description) == ["10.0.0.1/32", "0.0.0.0/0"])
        #expect(byFlag.warnings.contains { $0.hasPrefix("--trusted-proxy: every visitor is trusted") })
        let bad = Fixture.gateway(Fixture.input(["config": ["g.toml"], "trusted-proxy": ["proxy.test"]], files: file))
        #expect(bad.faults == ["--trusted-proxy: \"proxy.test\" is not valid; write an address block such as 192.0.2.0/24"])
    }
}
