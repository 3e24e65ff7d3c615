import Inet
import Logging
import Proxy
import Synchronization
import Testing

@Suite struct RouterTests {
    private func tunnel(_ id: String, _ domain: String, _ last: UInt8, enabled: Bool = true) -> TunnelConfig {
        TunnelConfig(id: id, domain: domain, agentVirtualIP: IPAddress(v4: 10, 1, 0, last), target: "t\(id)", enabled: enabled)
    }

    private func target(_ resolution: RouteResolution) -> String {
        switch resolution {
        case .route(let route): "\(route.target)"
        case .disabled: "disabled"
        case .unknown: "unknown"
        case .redirect(let origin): origin
        }
    }

    @Test("an exact name wins over the longest wildcard, which wins over a shorter one")
    func exactThenLongestWildcard() {
        let table = RouteTable([
            tunnel("1", "*.example.com", 1), tunnel("2", "*.a.example.com", 2), tunnel("3", "x.a.example.com", 3),
        ])
        #expect(target(table.resolve(host: "x.a.example.com")) == "10.1.0.3:80")
        #expect(target(table.resolve(host: "y.a.example.com")) == "10.1.0.2:80")
        #expect(target(table.resolve(host: "deep.y.a.example.com")) == "10.1.0.2:80")
        #expect(target(table.resolve(host: "z.example.com")) == "10.1.0.1:80")
        #expect(target(table.resolve(host: "example.com")) == "unknown")
        #expect(target(table.resolve(host: "a.example.com")) == "10.1.0.1:80")
        #expect(target(table.resolve(host: "")) == "unknown")
    }

    @Test("domains are configured in any case, and an enabled tunnel wins over a disabled one of the same domain")
    func normalisedDomains() {
        let table = RouteTable([tunnel("1", "App.Example.COM.", 1, enabled: false), tunnel("2", "app.example.com", 2)])
        #expect(target(table.resolve(host: "app.example.com")) == "10.1.0.2:80")
        let off = RouteTable([tunnel("1", "app.example.com", 1, enabled: false)])
        #expect(target(off.resolve(host: "app.example.com")) == "disabled")
    }

    @Test("the verbs replace, add and remove, and say so in the original's words")
    func verbs() {
        let lines = LineCollector()
        let router = Router(logger: Logger(label: "test", factory: { _ in lines }))
        router.updateTunnels([tunnel("1", "a.test", 1), tunnel("2", "b.test", 2, enabled: false)])
        router.addTunnel(tunnel("3", "c.test", 3))
        router.addTunnel(tunnel("3", "d.test", 4))
        #expect(target(router.resolve(host: "c.test")) == "unknown")
        #expect(target(router.resolve(host: "d.test")) == "10.1.0.4:80")
        #expect(router.removeTunnel("1"))
        #expect(!router.removeTunnel("1"))
        #expect(target(router.resolve(host: "a.test")) == "unknown")
        #expect(
            lines.all == [
                "info Updating tunnels [count=2]",
                "info Tunnel registered [agentIP=10.1.0.1 domain=a.test target=t1]",
                "info Adding tunnel [agentIP=10.1.0.3 domain=c.test target=t3]",
                "info Adding tunnel [agentIP=10.1.0.4 domain=d.test target=t3]",
                "info Removing tunnel [agentIP=10.1.0.1 domain=a.test target=t1]",
            ])
    }

    @Test("an update tells what is different, and leaves unchanged routes the same objects")
    func changes() throws {
        func route(_ router: Router, _ host: String) -> Route? {
            if case .route(let route) = router.resolve(host: host) { route } else { nil }
        }
        let router = Router(tunnels: [tunnel("1", "a.test", 1), tunnel("2", "b.test", 2), tunnel("3", "c.test", 3)], logger: .silent)
        let (a, b, c) = (
            try #require(route(router, "a.test")), try #require(route(router, "b.test")), try #require(route(router, "c.test"))
        )
        var changed = tunnel("2", "b.test", 2)
        changed.options.responseTimeout = .off
        let changes = router.updateTunnels([tunnel("3", "d.test", 3), changed, tunnel("1", "a.test", 1)])
        #expect([changes.added, changes.removed, changes.changed] == [["d.test"], ["c.test"], ["b.test"]])
        #expect("\(changes)" == "1 tunnel added, 1 removed, 1 changed, 1 unchanged")
        #expect(route(router, "a.test") === a)
        #expect(route(router, "b.test") !== b)
        let table = router.snapshot
        #expect(table.serves(a) && !table.serves(c))
        #expect(table.serves(b), "its requests still go to the same place")
        router.updateTunnels([tunnel("1", "a.test", 1, enabled: false)])
        #expect(!router.snapshot.serves(a))
    }

    @Test(
        "a Host field becomes a name to route by",
        arguments: [
            ("app.example.com", "app.example.com"), ("App.Example.COM", "app.example.com"), ("app.example.com.", "app.example.com"),
            ("app.example.com:8443", "app.example.com"), ("APP.example.com.:443", "app.example.com"), ("[FD00::2]:80", "[fd00::2]"),
            ("10.0.0.1:80", "10.0.0.1"), ("app.example.com:", "app.example.com"), ("", ""),
        ])
    func normalise(_ field: String, _ name: String) { #expect(HostName.normalize(field) == name) }

    @Test(
        "a Host field that can be no host is refused",
        arguments: ["user@host", "a b", "host:12x", "host:123456", "bücher.example", "a/b", "[::1", "[::1]x", "[zz]", "a,b"])
    func badHost(_ field: String) { #expect(HostName.normalize(field) == nil) }

    @Test("targets are addresses or names, with a port")
    func targets() {
        #expect(UpstreamTarget("127.0.0.1:8080")?.address == IPAddress(v4: 127, 0, 0, 1))
        #expect(UpstreamTarget("[fd00::2]:80")?.description == "[fd00::2]:80")
        #expect(UpstreamTarget("localhost:8080")?.host == .name("localhost"))
        #expect(UpstreamTarget("app:3000")?.description == "app:3000")
        for text in ["app", "app:", "app:0", "app:65536", ":80", "fd00::2:80", "a b:80", "app:+80"] { #expect(UpstreamTarget(text) == nil) }
    }

    @Test("text from outside cannot act on a terminal or grow a line")
    func escaping() {
        #expect(LogText.escape("plain") == "plain")
        #expect(LogText.escape("a\u{1B}[31m\u{7F}\u{85}\u{202E}b\n") == "a\\u{1B}[31m\\u{7F}\\u{85}\\u{202E}b\\u{A}")
        #expect(LogText.escape([0x61, 0xFF, 0x62]) == "a\u{FFFD}b")
        #expect(LogText.escape(String(repeating: "x", count: 5000)).utf8.count <= LogText.limit)
        #expect(LogText.escape(String(repeating: "é", count: 5000)).utf8.count <= LogText.limit)
    }
}

/// Keeps log lines as text.
final class LineCollector: LogHandler {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    var logLevel: Logger.Level {
        get { .debug }
        set {}
    }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) {
        let fields = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
        lines.withLock { $0.append("\(event.level) \(event.message) [\(fields)]") }
    }
}
