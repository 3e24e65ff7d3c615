import NIOPosix
import Proxy
import Testing

@Suite struct DNSSettingsTests {
    private static let files = [
        "/etc/token": "file-token-123\n", "/etc/secret": "aws-secret-123", "/etc/session": "aws-session-123", "/etc/tsig": "AAECAwQFBgc=\n",
        "/etc/blank": " \n", "/etc/two": "a b",
    ]

    private func read(
        _ table: String, environment: [String: String] = [:], worldReadable: Set<String> = []
    ) -> (settings: DNSProviderSettings?, faults: [String], warnings: [String]) {
        var files = Self.files
        files["/etc/gateway.toml"] = "[acme.dns]\n" + table
        let (settings, report) = DNSProviderSettings.read(
            Fixture.input(["config": ["/etc/gateway.toml"]], environment: environment, files: files, worldReadable: worldReadable))
        return (settings, report.faults.map(\.description), report.warnings.map(\.description))
    }

    @Test("cloudflare: the token from a file beside the configuration, or the environment, which wins")
    func cloudflare() throws {
        let file = read("provider = 'cloudflare'\ntoken-file = 'token'")
        guard case .cloudflare(let token, let endpoint)? = file.settings?.kind else { throw FixtureError(text: "\(file.faults)") }
        #expect(token.reveal() == "file-token-123" && endpoint.text == "https://api.cloudflare.com/client/v4")
        #expect(file.settings?.propagationLimit == .seconds(120) && file.settings?.resolver == nil && file.warnings == [])
        for (environment, expected) in [
            (["CLOUDFLARE_API_TOKEN": "one", "CF_API_TOKEN": "two"], "one"), (["CF_API_TOKEN": "two"], "two"),
            (["CF_API_TOKEN_FILE": "/etc/token"], "file-token-123"),
        ] {
            guard
                case .cloudflare(let token, _)? = read("provider = 'cloudflare'\ntoken-file = 'secret'", environment: environment).settings?
                    .kind
            else { throw FixtureError(text: "none") }
            #expect(token.reveal() == expected)
        }
        #expect(
            read("provider = 'cloudflare'").faults == [
                "/etc/gateway.toml: token-file: the API token is missing in [acme.dns]; give token-file, or CLOUDFLARE_API_TOKEN or CLOUDFLARE_API_TOKEN_FILE in the environment"
            ])
        #expect(
            read("provider = 'cloudflare'\ntoken-file = 'token'", worldReadable: ["/etc/token"]).warnings == [
                "/etc/token: every user of this machine can read the secret in it; run chmod 600"
            ])
    }

    @Test("whatever is different makes the settings differ, secrets and times too; the same file does not")
    func equality() throws {
        let tables = [
            "provider = 'cloudflare'\ntoken-file = 'token'", "provider = 'cloudflare'\ntoken-file = 'secret'",
            "provider = 'cloudflare'\ntoken-file = 'token'\nendpoint = 'https://c.test/'",
            "provider = 'cloudflare'\ntoken-file = 'token'\nresolver = '192.0.2.53'",
            "provider = 'cloudflare'\ntoken-file = 'token'\npropagation-limit = '5m'",
            "provider = 'route53'\naccess-key-id = 'A'\nsecret-access-key-file = 'secret'",
            "provider = 'route53'\naccess-key-id = 'B'\nsecret-access-key-file = 'secret'",
            "provider = 'route53'\naccess-key-id = 'A'\nsecret-access-key-file = 'token'",
            "provider = 'route53'\naccess-key-id = 'A'\nsecret-access-key-file = 'secret'\nsession-token-file = 'session'",
            "provider = 'route53'\naccess-key-id = 'A'\nsecret-access-key-file = 'secret'\nhosted-zone-id = 'Z1'",
            "provider = 'route53'\naccess-key-id = 'A'\nsecret-access-key-file = 'secret'\nregion = 'eu-west-1'",
            "provider = 'rfc2136'\nserver = '192.0.2.1'\nkey-name = 'k'\nkey-secret-file = 'tsig'",
            "provider = 'rfc2136'\nserver = '192.0.2.2'\nkey-name = 'k'\nkey-secret-file = 'tsig'",
            "provider = 'rfc2136'\nserver = '192.0.2.1'\nkey-name = 'l'\nkey-secret-file = 'tsig'",
            "provider = 'rfc2136'\nserver = '192.0.2.1'\nkey-name = 'k'\nkey-secret-file = 'tsig'\nzone = 'a.test'",
            "provider = 'rfc2136'\nserver = '192.0.2.1'\nkey-name = 'k'\nkey-secret-file = 'tsig'\nkey-algorithm = 'hmac-sha512'",
            "provider = 'exec'\ncommand = '/bin/a'", "provider = 'exec'\ncommand = '/bin/b'",
            "provider = 'webhook'\nurl = 'https://a.test/'", "provider = 'webhook'\nurl = 'https://b.test/'",
            "provider = 'webhook'\nurl = 'https://a.test/'\ntoken-file = 'token'",
        ]
        let settings = try tables.map { table in
            let result = read(table)
            return try #require(result.settings, "\(table): \(result.faults)")
        }
        let again = tables.compactMap { read($0).settings }
        for (place, one) in settings.enumerated() {
            for (other, two) in again.enumerated() { #expect((one == two) == (place == other), "\(tables[place]) and \(tables[other])") }
        }
    }

    @Test("route53: keys, session, region, zone and endpoint")
    func route53() throws {
        let all = read(
            """
            provider = 'route53'
            access-key-id = 'AKID'
            secret-access-key-file = 'secret'
            session-token-file = '/etc/session'
            region = 'eu-west-1'
            hosted-zone-id = 'Z1'
            endpoint = 'http://127.0.0.1:5000'
            propagation-limit = '5m'
            propagation-wait = '0s'
            resolver = '192.0.2.53'
            """)
        guard case .route53(let signer, let zone, let endpoint)? = all.settings?.kind else { throw FixtureError(text: "\(all.faults)") }
        #expect(signer.accessKeyID == "AKID" && signer.secretAccessKey.reveal() == "aws-secret-123" && signer.region == "eu-west-1")
        #expect(signer.sessionToken?.reveal() == "aws-session-123" && zone == "Z1" && endpoint.text == "http://127.0.0.1:5000")
        #expect(all.settings?.propagationLimit == .seconds(300) && all.settings?.propagationWait == .zero)
        #expect(all.settings?.resolver?.description == "192.0.2.53:53")
        let variables = ["AWS_ACCESS_KEY_ID": "ENVID", "AWS_SECRET_ACCESS_KEY": "env-secret", "AWS_SESSION_TOKEN_FILE": "/etc/session"]
        guard case .route53(let signer, nil, _)? = read("provider = 'route53'", environment: variables).settings?.kind else {
            throw FixtureError(text: "none")
        }
        #expect(signer.accessKeyID == "ENVID" && signer.secretAccessKey.reveal() == "env-secret" && signer.sessionToken != nil)
        #expect(signer.region == "us-east-1")
        #expect(read("provider = 'route53'").faults.count == 2)
    }

    @Test("rfc2136: server, zone and key")
    func rfc2136() throws {
        let all = read(
            "provider = 'rfc2136'\nserver = '192.0.2.1:53'\nzone = 'Example.com.'\nkey-name = 'k'\nkey-algorithm = 'hmac-sha512'\nkey-secret-file = 'tsig'"
        )
        guard case .rfc2136(let server, let zone, let key)? = all.settings?.kind else { throw FixtureError(text: "\(all.faults)") }
        #expect(server.description == "192.0.2.1:53" && zone?.description == "example.com" && key.algorithm == .sha512)
        let least = read("provider = 'rfc2136'\nserver = '[2001:db8::1]:53'\nkey-name = 'k'\nkey-secret-file = 'tsig'")
        guard case .rfc2136(_, nil, let standard)? = least.settings?.kind else { throw FixtureError(text: "\(least.faults)") }
        #expect(standard.algorithm == .sha256)
        #expect(
            read("provider = 'rfc2136'\nserver = 'ns.example.com'\nkey-name = 'k'\nkey-secret-file = 'tsig'").faults[0].contains(
                "is not the address of a server"))
        #expect(
            read("provider = 'rfc2136'\nserver = '192.0.2.1'\nkey-name = 'k'\nkey-secret-file = 'token'").faults[0].contains("no base64"))
        #expect(
            read("provider = 'rfc2136'\nserver = '192.0.2.1'\nkey-name = 'k'\nkey-algorithm = 'hmac-md5'\nkey-secret-file = 'tsig'").faults[
                0
            ].contains("hmac-sha256, hmac-sha384"))
    }

    @Test("exec and webhook")
    func others() throws {
        let exec = read("provider = 'exec'\ncommand = 'hooks/dns'", environment: ["PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x"])
        guard case .exec("/etc/hooks/dns", ["PATH": "/bin"])? = exec.settings?.kind else { throw FixtureError(text: "\(exec.faults)") }
        let hook = read("provider = 'webhook'\nurl = 'https://dns.example.com/acme'\ntoken-file = 'token'")
        guard case .webhook(let url, let token?)? = hook.settings?.kind else { throw FixtureError(text: "\(hook.faults)") }
        #expect(url.text == "https://dns.example.com/acme" && token.reveal() == "file-token-123")
        #expect(read("provider = 'webhook'\nurl = 'http://dns.example.com/'").faults[0].contains("not an https URL"))
    }

    @Test("the wait for silent servers is shorter than a short limit by itself")
    func shortLimit() {
        let table = "provider = 'exec'\ncommand = '/bin/x'\n"
        #expect(read(table + "propagation-limit = '20s'").settings?.propagationWait == .seconds(10))
        #expect(read(table).settings?.propagationWait == .seconds(30))
    }

    @Test("a secret in the file itself is refused without being repeated, with the key to use instead")
    func inline() {
        let refused = read("provider = 'cloudflare'\ntoken = 'swordfish'\ntoken-file = 'token'")
        #expect(
            refused.faults == [
                "/etc/gateway.toml:3:1: token: secrets do not stand in this file; write it to a file of mode 600, and its path as token-file"
            ])
        #expect(refused.settings == nil)
        #expect(read("provider = 'route53'\nsecret-access-key = 'swordfish'").faults.allSatisfy { !$0.contains("swordfish") })
    }

    @Test(
        "unknown providers, keys of other providers, unknown keys, empty files, files that are not there",
        arguments: [
            ("provider = 'bind'", "\"bind\" is not known; write one of cloudflare, route53"),
            ("", "provider: is missing in [acme.dns]"),
            ("provider = 'exec'\ncommand = '/bin/x'\nserver = '192.0.2.1'", "the provider exec has no such key; exec has command"),
            ("provider = 'exec'\ncommand = '/bin/x'\nnonsense = 1", "nonsense: no such key in [acme.dns]"),
            ("provider = 'cloudflare'\ntoken-file = 'blank'", "there is nothing in it"),
            ("provider = 'cloudflare'\ntoken-file = 'two'", "more than one word"),
            ("provider = 'cloudflare'\ntoken-file = 'absent'", "/etc/absent cannot be read: No such file or directory"),
            ("provider = 'cloudflare'\ntoken-file = 'token'\npropagation-limit = '1s'", "propagation-limit: \"1s\" is out of range"),
            ("provider = 'cloudflare'\ntoken-file = 'token'\npropagation-limit = '601s'", "propagation-limit: \"601s\" is out of range"),
            ("provider = 'cloudflare'\ntoken-file = 'token'\npropagation-wait = '2m'", "is not shorter than propagation-limit, 120s"),
            ("provider = 'webhook'\nurl = 'http://dns.example.com/sEcReT'", "url: not an https URL"),
        ])
    func faults(table: String, expected: String) {
        let (settings, faults, _) = read(table)
        #expect(settings == nil && faults.contains { $0.contains(expected) }, "\(faults)")
        #expect(!faults.contains { $0.contains("sEcReT") })
    }

    @Test("each provider is made by its name")
    func make() throws {
        let group = MultiThreadedEventLoopGroup.singleton
        for table in [
            "provider = 'cloudflare'\ntoken-file = 'token'",
            "provider = 'route53'\naccess-key-id = 'A'\nsecret-access-key-file = 'secret'",
            "provider = 'rfc2136'\nserver = '192.0.2.1'\nkey-name = 'k'\nkey-secret-file = 'tsig'",
            "provider = 'exec'\ncommand = '/bin/true'",
            "provider = 'webhook'\nurl = 'https://x.example'",
        ] {
            let provider = makeDNSProvider(try #require(read(table).settings), group: group)
            #expect(table.hasPrefix("provider = '\(provider.label)'"))
        }
    }
}
