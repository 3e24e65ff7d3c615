import FoundationEssentials
import Logging
import NIOPosix
import Proxy
import Testing

@Suite struct PublishedRoutesTests {
    private let temporary = TemporaryDirectory()

    private func load(_ tunnels: String) throws -> GatewayConfiguration {
        let toml = "[wireguard]\nconfig = \"g.conf\"\n\(tunnels)"
        return try #require(Fixture.gateway(Fixture.input(["config": ["g.toml"]], files: ["g.toml": toml])).configuration)
    }

    private func tunnel(_ domain: String, _ agent: String, _ more: String = "") -> String {
        "[[tunnel]]\ndomain = \"\(domain)\"\nagent = \"\(agent)\"\n\(more)\n"
    }

    private func publish(_ tunnels: String) throws -> (PublishedRoutes, Router, CertificateSelector) {
        let configuration = try load(tunnels)
        let router = Router(tunnels: configuration.routes, logger: .silent)
        let selector = try CertificateSelector(
            configuration: TLSFrontConfiguration(domains: configuration.routes.map(\.domain), stateDirectory: temporary.file("state")),
            logger: .silent)
        return (PublishedRoutes(configuration, router: router, selector: selector), router, selector)
    }

    private func route(_ router: Router, _ host: String) -> Route? {
        if case .route(let route) = router.resolve(host: host) { route } else { nil }
    }

    private func isAnswered(_ selector: CertificateSelector, _ name: String) -> Bool {
        if case .show = selector.choose(serverName: Array(name.utf8)) { true } else { false }
    }

    @Test("an added route is served and its name answered by TLS, until it is removed")
    func addAndRemove() async throws {
        let (routes, router, selector) = try publish(tunnel("a.test", "10.1.0.2"))
        let before = try #require(route(router, "a.test"))
        var options = RouteOptions()
        options.upstreamProtocol = .h2c
        let added = try await routes.add("B.test=10.1.0.3:81", options: options)
        #expect(added.route.domain == "b.test")
        #expect(!added.replaced && added.warning == nil)
        #expect("\(try #require(route(router, "b.test")).target)" == "10.1.0.3:81")
        #expect(route(router, "b.test")?.target.upstreamProtocol == .h2c)
        #expect(isAnswered(selector, "b.test"))
        #expect(try await routes.add("b.test=10.1.0.4", options: RouteOptions()).replaced)
        #expect("\(try #require(route(router, "b.test")).target)" == "10.1.0.4:80")
        #expect(route(router, "a.test") === before, "the other one has not noticed")
        let list = await routes.list.routes
        #expect(
            list.map { "\($0.domain) \($0.agent) \($0.protocol) \($0.enabled) \($0.origin.rawValue)" } == [
                "a.test 10.1.0.2:80 http1 true file", "b.test 10.1.0.4:80 http1 true run time",
            ])
        _ = try await routes.remove("b.test")
        #expect(route(router, "b.test") == nil)
        #expect(!isAnswered(selector, "b.test"))
        #expect(isAnswered(selector, "a.test"))
    }

    @Test("what is wrong with a route is said with the next step, and changes nothing")
    func faults() async throws {
        let (routes, router, _) = try publish(tunnel("a.test", "10.1.0.2"))
        for (text, part) in [
            ("a.test=10.1.0.3", "a.test is in the gateway's configuration; change it there and send the process SIGHUP"),
            ("b.test", "write DOMAIN=IP[:PORT]"), ("b.test=10.1.0.254", "write the agent's address"), ("-a..b=10.1.0.2", "is not a domain"),
            ("b.test=10.1.0.300", "write IP or IP:PORT"),
        ] {
            let error = await #expect(throws: (any Error).self) { try await routes.add(text, options: RouteOptions()) }
            #expect(error.map { "\($0)" }?.contains(part) == true, "\(text): \(error.map { "\($0)" } ?? "")")
        }
        for (domain, part) in [("a.test", "remove it there"), ("c.test", "kakuremichi route list"), ("", "is not a domain")] {
            let error = await #expect(throws: (any Error).self) { try await routes.remove(domain) }
            #expect(error.map { "\($0)" }?.contains(part) == true)
        }
        #expect(router.snapshot.tunnels.count == 1)
        let warned = try await routes.add("b.test=10.250.0.1", options: RouteOptions())
        #expect(warned.warning?.contains("no peer's AllowedIPs holds 10.250.0.1") == true)
    }

    @Test("a reload keeps what was added, unless the configuration has the domain now; unchanged routes stay the same objects")
    func reload() async throws {
        let (routes, router, selector) = try publish(tunnel("a.test", "10.1.0.2") + tunnel("b.test", "10.1.0.2"))
        _ = try await routes.add("c.test=10.1.0.3", options: RouteOptions())
        _ = try await routes.add("d.test=10.1.0.3", options: RouteOptions())
        let (a, d) = (route(router, "a.test"), route(router, "d.test"))
        try await routes.prepare(
            try load(tunnel("a.test", "10.1.0.2") + tunnel("b.test", "10.1.0.9") + tunnel("c.test", "10.1.0.4")))
        let changes = await routes.publish()
        #expect(changes.description == "0 tunnels added, 0 removed, 2 changed, 2 unchanged")
        #expect(changes.changed == ["b.test", "c.test"])
        #expect(route(router, "a.test") === a)
        #expect(route(router, "d.test") === d)
        #expect("\(try #require(route(router, "c.test")).target)" == "10.1.0.4:80")
        #expect(await routes.list.routes.filter { $0.origin == .runTime }.map(\.domain) == ["d.test"])
        try await routes.prepare(try load(tunnel("e.test", "10.1.0.2", "enabled = false")))
        #expect(await routes.publish().description == "1 tunnel added, 3 removed, 0 changed, 1 unchanged")
        #expect(isAnswered(selector, "d.test") && isAnswered(selector, "e.test") && !isAnswered(selector, "a.test"))
    }

    @Test(
        "addresses change at the next start only: after a reload routes of the file and added ones still come from those of the interface")
    func addresses() async throws {
        let file = tunnel("a.test", "10.1.0.2")
        let (routes, router, _) = try publish(file)
        let started = try load(file)
        let moved = Fixture.gatewayFile.replacing("10.1.0.254/24", with: "10.1.0.253/24, 10.7.0.1/24")
        func reload(_ tunnels: String) -> (configuration: GatewayConfiguration?, report: ConfigurationReport) {
            let toml = "[wireguard]\nconfig = \"g.conf\"\n\(tunnels)"
            let input = Fixture.input(["config": ["g.toml"]], files: ["g.toml": toml, "g.conf": moved])
            return GatewayConfiguration.load(input, over: started.interface.addresses)
        }
        let new = try #require(reload(file + tunnel("b.test", "10.7.0.2", "gateway-ip = \"10.1.0.254\"")).configuration)
        #expect(new.interface.localAddresses.map { "\($0)" } == ["10.1.0.253", "10.7.0.1", "fd00::fe"])
        #expect(new.routes.compactMap { $0.gatewayIP?.description } == ["10.1.0.254", "10.1.0.254"])
        try await routes.prepare(new)
        #expect(await routes.publish().description == "1 tunnel added, 0 removed, 0 changed, 1 unchanged")
        _ = try await routes.add("c.test=10.1.0.3", options: RouteOptions())
        #expect(router.snapshot.tunnels.compactMap { $0.gatewayIP?.description } == ["10.1.0.254", "10.1.0.254", "10.1.0.254"])
        // Of the file, but not of the interface; and the other way round.
        let faults = reload(tunnel("a.test", "10.7.0.2", "gateway-ip = \"10.7.0.1\"") + tunnel("b.test", "10.1.0.254")).report.faults
        #expect(
            faults.map { "\($0.problem); \($0.fix)" } == [
                "10.7.0.1 is not an address of the running interface, whose addresses change at the next start only; restart the gateway",
                "10.1.0.254 is this gateway's own address; write the agent's address",
            ])
    }

    @Test("certificates that cannot be used change nothing")
    func badCertificates() async throws {
        let (routes, router, selector) = try publish(tunnel("a.test", "10.1.0.2"))
        var new = try load(tunnel("b.test", "10.1.0.2"))
        new.certificates = [CertificateFiles(certificateFile: temporary.file("none.pem"), keyFile: temporary.file("none.key"))]
        let configuration = new
        await #expect(throws: CertificateFileError.self) { try await routes.prepare(configuration) }
        #expect(isAnswered(selector, "a.test") && !isAnswered(selector, "b.test"))
        #expect(await routes.list.routes.map(\.domain) == ["a.test"])
        #expect(await routes.publish().unchanged == 1)
        #expect(route(router, "a.test") != nil)
    }

    @Test("the admin socket adds, lists and removes routes")
    func verbs() async throws {
        let (routes, _, _) = try publish(tunnel("a.test", "10.1.0.2"))
        let group = MultiThreadedEventLoopGroup.singleton
        let socket = try await AdminSocket.start(path: temporary.file("admin.sock"), group: group, timeLimit: .minutes(1))
        RouteVerbs.register(on: socket, routes: routes)
        func ask(_ verb: String, _ arguments: [String: String]? = nil) async throws -> [UInt8] {
            try await AdminClient.ask(
                AdminRequest(verb: verb, arguments: arguments), at: socket.path, group: group, timeLimit: .minutes(1))
        }
        let bytes = try await ask(RouteVerbs.add, ["route": "b.test=10.1.0.3", "protocol": "h2c"])
        #expect(try JSONDecoder().decode(RouteList.Answer.self, from: Data(bytes)).route.protocol == "h2c")
        let list = try JSONDecoder().decode(RouteList.self, from: Data(try await ask(RouteVerbs.list)))
        #expect(
            list.table.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") } == [
                "ROUTE AGENT PROTOCOL STATE FROM", "a.test 10.1.0.2:80 http1 enabled file", "b.test 10.1.0.3:80 h2c enabled run time",
            ])
        let fault = await #expect(throws: AdminFault.self) {
            try await ask(RouteVerbs.add, ["route": "c.test=10.1.0.3", "protocol": "h3"])
        }
        #expect(fault?.error.contains("\"h3\" is not known; write http1, or h2c") == true)
        _ = try await ask(RouteVerbs.remove, ["domain": "b.test"])
        #expect(await routes.list.routes.count == 1)
        await socket.close()
    }
}
