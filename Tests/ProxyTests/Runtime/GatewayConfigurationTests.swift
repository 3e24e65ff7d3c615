import Inet
import Proxy
import Testing

@Suite struct GatewayConfigurationTests {
    private let route = ["wg": ["g.conf"], "route": ["app.example.com=10.1.0.2"]]

    private func with(_ flags: [String: [String]]) -> [String: [String]] { route.merging(flags) { _, new in new } }

    @Test("the one-line form needs no file but the WireGuard one")
    func oneLine() throws {
        let flags = with([
            "route": ["App.Example.com.=10.1.0.2:8000", "v6.example.com=[fd00::2]:81", "p.example.com=[fd00::2]"],
            "https": ["127.0.0.1:8443", "[::1]:8443"],
            "http": ["127.0.0.1:8080"], "state": ["/tmp/s"],
        ])
        let (configuration, faults, warnings) = Fixture.gateway(Fixture.input(flags))
        #expect(faults.isEmpty)
        #expect(warnings.isEmpty)
        let gateway = try #require(configuration)
        #expect(gateway.routes.map(\.domain) == ["app.example.com", "v6.example.com", "p.example.com"])
        #expect(gateway.routes.map(\.target) == ["10.1.0.2:8000", "[fd00::2]:81", "[fd00::2]:80"])
        #expect(gateway.routes.compactMap(\.gatewayIP).map(\.description) == ["10.1.0.254", "fd00::fe", "fd00::fe"])
        #expect(gateway.https.map(\.description) == ["127.0.0.1:8443", "[::1]:8443"])
        #expect(gateway.http.map(\.description) == ["127.0.0.1:8080"])
        #expect(gateway.publicHTTPSPort == 8443)
        #expect(gateway.common.stateDirectory == "/tmp/s")
        #expect(gateway.interface.listenPort == 51820)
        #expect(gateway.interface.mtu == 1420)
    }

    @Test("without listeners the standard ports on all addresses, without a state directory the user's")
    func defaults() throws {
        let gateway = try #require(Fixture.gateway(Fixture.input(route)).configuration)
        #expect(gateway.https.map(\.description) == ["[::]:443"])
        #expect(gateway.http.map(\.description) == ["[::]:80"])
        #expect(gateway.publicHTTPSPort == 443)
        #expect(gateway.common.stateDirectory == "/home/me/.local/state/kakuremichi/gateway")
        let xdg = Fixture.input(route, environment: ["XDG_STATE_HOME": "/xdg", "HOME": "/home/me"])
        #expect(Fixture.gateway(xdg).configuration?.common.stateDirectory == "/xdg/kakuremichi/gateway")
        #expect(Fixture.gateway(Fixture.input(route, environment: [:])).faults.first?.contains("--state") == true)
    }

    @Test("a flag wins over the environment, that over the file, that over what is built in")
    func precedence() throws {
        let files = ["gateway.toml": "http = '[::]:1'\n[wireguard]\nconfig = 'g.conf'\n[[tunnel]]\ndomain='a.b'\nagent='10.1.0.2'\n"]
        func http(_ flags: [String: [String]], _ environment: [String: String]) -> [String]? {
            let environment = environment.merging(["HOME": "/h"]) { first, _ in first }
            return Fixture.gateway(Fixture.input(flags, environment: environment, files: files)).configuration?.http.map(\.description)
        }
        #expect(http([:], [:]) == ["[::]:1"])
        #expect(http([:], ["HTTP_PORT": "2"]) == ["[::]:2"])
        #expect(http(["http-port": ["3"]], ["HTTP_PORT": "2"]) == ["[::]:3"])
        #expect(http(["http": ["127.0.0.1:4"], "http-port": ["3"]], ["HTTP_PORT": "2"]) == ["127.0.0.1:4"])
        #expect(http(["http": ["off"]], [:]) == [])
        #expect(http([:], ["HTTP_PORT": ""]) == ["[::]:1"])
    }

    @Test("the access log is off, or a file beside the one that names it, or standard output")
    func accessLog() {
        let files = [
            "/etc/k/g.conf": Fixture.gatewayFile,
            "/etc/k/gateway.toml": "access-log = 'a.log'\n[wireguard]\nconfig = 'g.conf'\n[[tunnel]]\ndomain='a.b'\nagent='10.1.0.2'\n",
        ]
        func path(_ flags: [String: [String]]) -> String? {
            Fixture.gateway(Fixture.input(flags.merging(["config": ["/etc/k/gateway.toml"]]) { first, _ in first }, files: files))
                .configuration?.accessLog
        }
        #expect(path([:]) == "/etc/k/a.log")
        #expect(path(["access-log": ["b.log"]]) == "b.log")
        #expect(path(["access-log": ["-"]]) == "-")
        #expect(Fixture.gateway(Fixture.input(route)).configuration?.accessLog == nil)
    }

    @Test("1 to 64 loops; a flag wins over the file, and one is enough if nothing is said")
    func loops() {
        let files = ["gateway.toml": "loops = 4\n[wireguard]\nconfig = 'g.conf'\n[[tunnel]]\ndomain='a.b'\nagent='10.1.0.2'\n"]
        func loops(_ flags: [String: [String]], files: [String: String] = [:]) -> (Int?, [String]) {
            let (configuration, faults, _) = Fixture.gateway(Fixture.input(flags, environment: ["HOME": "/h"], files: files))
            return (configuration?.common.loops, faults)
        }
        #expect(loops(route).0 == 1)
        #expect(loops([:], files: files).0 == 4)
        #expect(loops(["loops": ["64"]], files: files).0 == 64)
        for wrong in ["0", "65", "two"] {
            let (_, faults) = loops(with(["loops": [wrong]]))
            #expect(faults.count == 1 && faults.first?.contains("write an integer from 1 to 64") == true, "\(faults)")
        }
    }

    @Test("transport encryption is chosen by flag or [crypto], and nothing else is taken")
    func cryptoTransport() throws {
        func read(_ flags: [String: [String]], _ crypto: String) -> (CryptoTransport?, [String]) {
            let files = ["gateway.toml": "\(crypto)\n[wireguard]\nconfig = 'g.conf'\n[[tunnel]]\ndomain='a.b'\nagent='10.1.0.2'\n"]
            let result = Fixture.gateway(Fixture.input(flags, files: files))
            return (result.configuration?.common.cryptoTransport, result.faults)
        }
        #expect(read([:], "") == (.libsodium, []))
        #expect(read([:], "[crypto]\ntransport = 'fastest'") == (.fastest, []))
        #expect(read(["crypto-transport": ["libsodium"]], "[crypto]\ntransport = 'fastest'") == (.libsodium, []))
        #expect(read(["crypto-transport": ["fastest"]], "") == (.fastest, []))
        #expect(
            read([:], "[crypto]\ntransport = 'rot13'").1 == [
                "gateway.toml:2:13: transport: \"rot13\" is not known; write libsodium or fastest"
            ])
        #expect(read([:], "[crypto]\ncipher = 'fastest'").1.first?.contains("no such key in [crypto]") == true)
        #expect(read([:], "crypto = 'fastest'").1.first?.contains("write [crypto]") == true)
    }

    @Test("the original's settings mean what they meant")
    func originalSettings() throws {
        let pem = [
            "c.pem": "-----BEGIN CERTIFICATE-----", "k.pem": "-----BEGIN PRIVATE KEY-----", "wireguard.key": " \(Fixture.agentKey)\n",
        ]
        let input = Fixture.input(
            route,
            environment: [
                "HOME": "/h", "HTTPS_PORT": "8443", "WIREGUARD_PORT": "7", "WIREGUARD_KEY_FILE": "wireguard.key",
                "WIREGUARD_INTERFACE": "wg0",
                "TLS_CERT_FILE": "c.pem", "TLS_KEY_FILE": "k.pem", "REGION": "local",
            ], files: pem)
        let gateway = Fixture.gateway(input)
        #expect(gateway.configuration?.https.map(\.description) == ["[::]:8443"])
        #expect(gateway.configuration?.interface.listenPort == 7)
        #expect(gateway.configuration?.certificates.map { "\($0.certificateFile) \($0.keyFile) \($0.domains)" } == ["c.pem k.pem []"])
        let expected = KeyFiles.publicKey(ofContents: Array(Fixture.agentKey.utf8))
        #expect(gateway.configuration?.interface.privateKey.key.publicKey == expected)
    }

    @Test("a control server is refused without local configuration and warned of beside it")
    func controlServer() {
        let environment = ["HOME": "/h", "CONTROL_URL": "wss://control.example.com/ws", "API_KEY": "gtw_secret"]
        let alone = Fixture.gateway(Fixture.input([:], environment: environment))
        #expect(alone.faults.contains { $0.contains("CONTROL_URL: a control server is not supported in this version") })
        #expect(!alone.faults.joined().contains("gtw_secret"))
        let beside = Fixture.gateway(Fixture.input(route, environment: environment))
        #expect(beside.faults.isEmpty)
        #expect(beside.warnings.count == 2)
        #expect(!Fixture.gateway(Fixture.input(with(["api-key": ["gtw_secret"]]))).faults.isEmpty)
    }

    @Test("the full form is read, with paths relative to it")
    func fullForm() throws {
        let toml = """
            state = "state"
            https = ["[::]:8443"]
            http = "off"
            public-https-port = 443
            log-level = "warn"
            log-format = "json"

            [wireguard]
            private-key-file = "wg.key"
            address = ["10.1.0.254/24", "10.2.0.254/24"]
            listen-port = 51820
            mtu = 1400
            [[wireguard.peer]]
            public-key = "\(Fixture.agentKey)"
            preshared-key = "\(Fixture.presharedKey)"
            allowed-ips = "10.0.0.0/8"
            endpoint = "agent.example.com:51821"
            persistent-keepalive = 0

            [[tunnel]]
            domain = "a.example.com"
            agent = "10.2.0.2"
            port = 8080
            [[tunnel]]
            domain = "b.example.com"
            agent = "10.2.0.3:81"
            gateway-ip = "10.1.0.254"
            enabled = false

            [[certificate]]
            cert = "c.pem"
            key = "/abs/k.pem"
            domains = ["a.example.com"]
            """
        let files = [
            "/etc/k/gateway.toml": toml, "/etc/k/wg.key": Fixture.gatewayKey, "/etc/k/c.pem": "-----BEGIN CERTIFICATE-----",
            "/abs/k.pem": "-----BEGIN EC PRIVATE KEY-----",
        ]
        let input = Fixture.input(
            ["config": ["/etc/k/gateway.toml"]], files: files, worldReadable: ["/etc/k/gateway.toml", "/abs/k.pem", "/etc/k/wg.key"])
        let (configuration, faults, warnings) = Fixture.gateway(input)
        #expect(faults == [])
        #expect(warnings.filter { $0.contains("chmod 600") }.count == 2)
        let gateway = try #require(configuration)
        #expect(gateway.common.stateDirectory == "/etc/k/state")
        #expect(gateway.common.logLevel == .warning)
        #expect(gateway.common.logFormat == .json)
        #expect(gateway.http.isEmpty)
        #expect(gateway.publicHTTPSPort == 443)
        #expect(gateway.interface.addresses.map(\.description) == ["10.1.0.254/24", "10.2.0.254/24"])
        #expect(gateway.interface.mtu == 1400)
        #expect(gateway.interface.peers.first?.endpoint?.description == "agent.example.com:51821")
        #expect(gateway.interface.peers.first?.persistentKeepalive == .zero)
        #expect(gateway.interface.peers.first?.presharedKey != nil)
        #expect(
            gateway.routes.map { "\($0.target) \($0.gatewayIP?.description ?? "none") \($0.enabled)" } == [
                "10.2.0.2:8080 10.2.0.254 true", "10.2.0.3:81 10.1.0.254 false",
            ])
        #expect(
            gateway.certificates.map { "\($0.certificateFile) \($0.keyFile) \($0.domains)" } == [
                "/etc/k/c.pem /abs/k.pem [\"a.example.com\"]"
            ])
    }

    @Test("all errors are collected, each with file, line, key and the fix")
    func allErrors() {
        let toml = """
            https = ["[::]:443", 12]
            public-https-port = 9223372036854775807
            foo = 1
            log-level = "loud"
            [wireguard]
            config = "g.conf"
            mtu = 1
            [[tunnel]]
            domain = "a..b"
            agent = "10.1.0.2"
            port = 65536
            [[tunnel]]
            agent = "10.1.0.3"
            [[certificate]]
            cert = "none.pem"
            """
        let faults = Fixture.gateway(Fixture.input(["config": ["x.toml"]], files: ["x.toml": toml])).faults
        let expected = [
            "x.toml:3:1: foo: no such key", "x.toml:4:13: log-level: \"loud\" is not a log level", "x.toml:7:1: mtu: stands beside config",
            "x.toml:1:22: https: an integer is given",
            "x.toml:2:21: public-https-port: 9223372036854775807 is out of range; write an integer from 1 to 65535",
            "x.toml:9:10: domain: \"a..b\" is not a domain", "x.toml:11:8: port: 65536 is out of range",
            "x.toml:12:1: tunnel: domain is missing",
            "x.toml:14:1: key: is missing",
        ]
        for text in expected { #expect(faults.contains { $0.hasPrefix(text) }, "\(text) in \(faults)") }
        #expect(faults.count == expected.count)
    }

    @Test("faults of the WireGuard file carry its name and line")
    func wireGuardFaults() {
        let files = ["g.conf": "[Interface]\nPrivateKey = \(Fixture.gatewayKey)x\nMTU = 99999999999999999999\n"]
        let faults = Fixture.gateway(Fixture.input(route, files: files)).faults
        #expect(faults.map { $0.prefix(11) } == ["g.conf:2:1: ", "g.conf:3:1: "].map { $0.prefix(11) })
        #expect(!faults.joined().contains(Fixture.gatewayKey.prefix(10)))
    }

    @Test(
        "bad routes say what to write",
        arguments: [
            ("app.example.com", "DOMAIN=IP"), ("app.example.com=agent", "IP:PORT"), ("app.example.com=fd00::2", "[fd00::2]:80"),
            ("a.*.com=10.1.0.2", "*.example.com"), ("exämple.com=10.1.0.2", "xn--"), ("=10.1.0.2", "app.example.com"),
            ("app.example.com=10.1.0.2:0", "IP:PORT"), ("app.example.com=10.1.0.2:65536", "IP:PORT"),
            ("app.example.com=127.0.0.1", "IP:PORT"),
            ("app.example.com=10.1.0.254", "the agent's address"), ("app..com=10.1.0.2", "a name such as"),
        ])
    func badRoutes(route: String, fix: String) {
        let faults = Fixture.gateway(Fixture.input(with(["route": [route]]))).faults
        #expect(faults.count == 1)
        #expect(faults.first?.hasPrefix("--route: ") == true)
        #expect(faults.first?.contains(fix) == true, "\(faults)")
    }

    @Test("a domain given twice is an error")
    func twice() {
        #expect(Fixture.gateway(Fixture.input(with(["route": ["a.b=10.1.0.2", "A.B=10.1.0.3"]]))).faults.count == 1)
    }

    @Test("the source of a route is the narrowest block that holds the agent, else the first address of its family, else an error")
    func routeSource() {
        func source(_ addresses: String, _ route: String) -> (String?, String) {
            let file = "[Interface]\nPrivateKey=\(Fixture.gatewayKey)\nAddress=\(addresses)\n"
            let result = Fixture.gateway(Fixture.input(with(["route": [route]]), files: ["g.conf": file]))
            return (result.configuration?.routes.first?.gatewayIP?.description, result.faults.joined())
        }
        #expect(source("10.0.0.1/8, 10.1.0.254/24", "a.b=10.1.0.2").0 == "10.1.0.254")
        #expect(source("10.2.0.1/24, 10.3.0.1/24", "a.b=10.9.0.2").0 == "10.2.0.1")
        #expect(source("10.2.0.1/24", "a.b=[fd00::2]").1.contains("Address = fd00::fe/64"))
    }

    @Test("a route that no peer carries is warned of, not refused: the agent may come later")
    func uncarriedRoute() {
        let result = Fixture.gateway(Fixture.input(with(["route": ["test.example.com=10.77.0.100"]])))
        #expect(result.faults.isEmpty)
        #expect(result.warnings.contains { $0.contains("no peer's AllowedIPs holds 10.77.0.100") })
    }

    @Test(
        "bad listeners are errors", arguments: ["8443", "localhost:8443", "1.2.3.4:65536", "1.2.3.4:99999999999999999999", "[::]", ""])
    func badListeners(text: String) {
        #expect(Fixture.gateway(Fixture.input(with(["https": [text]]))).faults.count == 1)
    }

    @Test("a certificate needs its key, and both must be readable PEM")
    func certificates() {
        let files = ["c.pem": "-----BEGIN CERTIFICATE-----", "junk.pem": "junk"]
        #expect(Fixture.gateway(Fixture.input(with(["cert": ["c.pem"]]), files: files)).faults.first?.contains("--key FILE") == true)
        #expect(Fixture.gateway(Fixture.input(with(["cert": ["c.pem"], "key": ["none.pem"]]), files: files)).faults.count == 1)
        #expect(Fixture.gateway(Fixture.input(with(["cert": ["c.pem"], "key": ["junk.pem"]]), files: files)).faults.count == 1)
    }

    @Test("one certificate may be the default; a second one is an error with its line")
    func defaultCertificate() throws {
        func read(_ values: String...) -> (certificates: [Bool]?, faults: [String]) {
            let tables = values.map { "[[certificate]]\ncert = \"c.pem\"\nkey = \"k.pem\"\n" + ($0.isEmpty ? "\n" : "default = \($0)\n") }
            let files = [
                "x.toml": "[wireguard]\nconfig = \"g.conf\"\n" + tables.joined(), "g.conf": Fixture.gatewayFile,
                "c.pem": "-----BEGIN CERTIFICATE-----", "k.pem": "-----BEGIN PRIVATE KEY-----",
            ]
            let (configuration, faults, _) = Fixture.gateway(Fixture.input(["config": ["x.toml"]], files: files))
            return (configuration?.certificates.map(\.isDefault), faults)
        }
        #expect(read("", "true", "false").certificates == [false, true, false])
        let twice = read("true", "false", "true")
        #expect(twice.certificates == nil)
        #expect(twice.faults == ["x.toml:14:11: default: another certificate is the default already; leave one default = true"])
        #expect(read("1").faults.first?.hasPrefix("x.toml:6:11: default: an integer is given") == true)
    }

    @Test("nothing given says how to begin")
    func nothing() {
        #expect(Fixture.gateway(Fixture.input()).faults.first?.contains("kakuremichi init") == true)
        #expect(Fixture.gateway(Fixture.input(["config": ["none.toml"]])).faults.first?.contains("none.toml") == true)
        #expect(
            Fixture.gateway(Fixture.input(["config": ["x.toml"]], files: ["x.toml": "a = ["])).faults.first?.hasPrefix("x.toml:1:5: ")
                == true)
    }

    @Test("of many routes to as many peers the one that no peer has is found")
    func manyRoutes() throws {
        let count = 3_000
        func address(_ number: Int) -> String { "10.\(2 + number / 65536).\(number / 256 % 256).\(number % 256)" }
        var wg = "[Interface]\nPrivateKey = \(Fixture.gatewayKey)\nAddress = 10.1.0.254/8\n"
        var toml = "state = '/s'\n[wireguard]\nconfig = 'many.conf'\n"
        for number in 0..<count {
            let digits = "\(1_000_000 + number)"
            wg += "[Peer]\nPublicKey = \(digits)\(Fixture.agentKey.dropFirst(digits.count))\nAllowedIPs = \(address(number))/32\n"
            toml += "[[tunnel]]\ndomain = 'a\(number).example.com'\nagent = '\(address(count - number))'\n"
        }
        let (configuration, faults, warnings) = Fixture.gateway(
            Fixture.input(["config": ["many.toml"]], files: ["many.toml": toml, "many.conf": wg]))
        #expect(faults == [] && configuration?.routes.count == count)
        // The first route goes one beyond the last peer.
        let text = "domain: no peer's AllowedIPs holds \(address(count)): requests will be answered with 503; add it to the agent's [Peer]"
        #expect(warnings == ["many.toml:5:10: \(text)"])
    }

    @Test("no description shows a private or preshared key")
    func secrets() throws {
        let file = Fixture.gatewayFile + "\nPresharedKey = \(Fixture.presharedKey)"
        let gateway = try #require(Fixture.gateway(Fixture.input(route, files: ["g.conf": file])).configuration)
        var dumped = ""
        dump(gateway, to: &dumped)
        for text in ["\(gateway)", String(reflecting: gateway), dumped, gateway.summary] {
            #expect(!text.contains(Fixture.gatewayKey))
            #expect(!text.contains(Fixture.presharedKey))
        }
    }

    @Test("a peer with the interface's own key is an error")
    func ownKey() throws {
        let own = try #require(KeyFiles.publicKey(ofContents: Array(Fixture.gatewayKey.utf8)))
        let file = Fixture.gatewayFile + "\n[Peer]\nPublicKey = \(own)\nAllowedIPs = 10.8.0.1/32\n"
        #expect(Fixture.gateway(Fixture.input(route, files: ["g.conf": file])).faults.count == 1)
    }
}
