import Proxy
import Testing

@Suite struct ACMESettingsTests {
    private static let thumbprint = String(repeating: "a", count: 43)

    private func load(
        _ flags: [String: [String]] = [:], environment: [String: String] = [:], toml: String? = nil, files: [String: String] = [:]
    ) -> (acme: ACMESettings?, faults: [String], warnings: [String]) {
        var flags = flags
        var files = files
        if let toml {
            flags["config"] = ["gateway.toml"]
            files["gateway.toml"] = "state = '/s'\n[wireguard]\nconfig = 'g.conf'\n[[tunnel]]\ndomain='a.b'\nagent='10.1.0.2'\n" + toml
        } else {
            flags.merge(["wg": ["g.conf"], "route": ["app.example.com=10.1.0.2"], "state": ["/s"]]) { first, _ in first }
        }
        let input = Fixture.input(flags, environment: environment.merging(["HOME": "/h"]) { first, _ in first }, files: files)
        let (configuration, faults, warnings) = Fixture.gateway(input)
        return (configuration?.acme, faults, warnings)
    }

    @Test("an address alone is Let's Encrypt, with its staging directory for retries")
    func address() throws {
        for (flags, environment) in [
            (["acme-email": ["me@example.org"]], [:]), ([:], ["ACME_EMAIL": "me@example.org"]),
        ] as [([String: [String]], [String: String])] {
            let acme = try #require(load(flags, environment: environment).acme)
            #expect(acme.email == "me@example.org" && acme.cacheDirectory == "/s/certificates")
            #expect(acme.authorities.map(\.directory.text) == ["https://acme-v02.api.letsencrypt.org/directory"])
            #expect(acme.authorities[0].rehearsal?.text == "https://acme-staging-v02.api.letsencrypt.org/directory")
            #expect(acme.challenges == [.tlsALPN01, .http01])
        }
        let staging = try #require(
            load(environment: ["ACME_EMAIL": "me@example.org", "ACME_STAGING": "true", "ACME_CACHE_DIR": "/c"]).acme)
        #expect(staging.authorities.map(\.directory.text) == ["https://acme-staging-v02.api.letsencrypt.org/directory"])
        #expect(staging.cacheDirectory == "/c")
        #expect(load().acme == nil)
        #expect(load(environment: ["ACME_EMAIL": ""]).acme == nil)
    }

    @Test(
        "the placeholder of the original is refused, and so is what is no address",
        arguments: [
            "admin@example.com", "Admin@Example.com", "me", "me@", "@example.org", "me@localhost", "a@b@c.d", "me@example.org,x@y.z",
            "a b@c.d",
        ])
    func noAddress(text: String) {
        #expect(load(["acme-email": [text]]).faults.count == 1)
        #expect(load(environment: ["ACME_EMAIL": text]).faults.first?.contains("ACME_EMAIL") == true)
    }

    @Test("other authorities by name or URL, in order, with accounts of their customers")
    func authorities() throws {
        let root = try selfSigned(["ca.example.com"]).certificate
        let files = ["eab": "  c2VjcmV0LWhtYWMta2V5\n", "bad": "!!", "/ca.pem": root, "/none.pem": "none"]
        let flags = [
            "acme-directory": ["https://ca.example.com/dir"], "acme-ca-file": ["/ca.pem"], "acme-eab-key-id": ["kid"],
            "acme-eab-key-file": ["eab"],
        ]
        let one = try #require(load(flags, files: files).acme)
        #expect(one.email.isEmpty && one.authorities[0].trustFile == "/ca.pem" && one.authorities[0].externalAccount?.keyID == "kid")
        #expect(one.authorities[0].rehearsal == nil)
        #expect(one == load(flags, files: files).acme)
        // A reload tells of a new key, too.
        #expect(one != load(flags, files: files.merging(["eab": "YW5vdGhlci1obWFjLWtleQ"]) { $1 }).acme)
        for file in ["/none.pem", "/missing.pem"] {
            #expect(load(["acme-directory": ["https://ca.example.com/dir"], "acme-ca-file": [file]], files: files).faults.count == 1)
        }
        let toml = """
            [acme]
            email = "me@example.org"
            profile = "shortlived"
            key-type = "rsa2048"
            [[acme.ca]]
            directory = "letsencrypt"
            [[acme.ca]]
            directory = "zerossl"
            eab-key-id = "kid"
            eab-key-file = "eab"
            """
        let two = try #require(load(toml: toml, files: files).acme)
        #expect(two.authorities.map(\.directory.text).last == "https://acme.zerossl.com/v2/DV90")
        #expect(two.profile == "shortlived" && two.keyKind == .rsa)
        #expect(load(["acme-directory": ["zerossl"]]).faults.first?.contains("eab-key-id") == true)
        #expect(load(["acme-directory": ["letsencrypt"], "acme-eab-key-id": ["kid"]]).faults.first?.contains("alone") == true)
        #expect(
            load(["acme-directory": ["letsencrypt"], "acme-eab-key-id": ["k"], "acme-eab-key-file": ["bad"]], files: files).faults.count
                == 1)
        for url in ["http://ca.example.com/dir", "ftp://x", "letsencrypts", ""] {
            #expect(load(["acme-directory": [url]]).faults.count == 1, "\(url)")
        }
    }

    @Test("staging is Let's Encrypt's, by its name too; beside another directory it is a fault")
    func staging() throws {
        let directory = "https://acme-staging-v02.api.letsencrypt.org/directory"
        for toml in [
            "directory = 'letsencrypt'", "directory = 'letsencrypt-staging'", "email = 'a@b.c'", "[[acme.ca]]\ndirectory = 'letsencrypt'",
        ] {
            let acme = try #require(load(toml: "[acme]\nstaging = true\n\(toml)\n").acme, "\(toml)")
            #expect(acme.authorities.map(\.directory.text) == [directory], "\(toml)")
            #expect(acme.authorities[0].rehearsal == nil)
        }
        #expect(load(["acme-directory": ["letsencrypt"], "acme-staging": ["true"]]).acme?.authorities.map(\.directory.text) == [directory])
        for toml in ["directory = 'https://ca.example.com/dir'", "directory = ['letsencrypt', 'https://ca.example.com/dir']"] {
            #expect(
                load(toml: "[acme]\nstaging = true\n\(toml)\n").faults == [
                    "gateway.toml:8:11: staging: is for letsencrypt alone, and another directory is given; write that CA's staging directory as directory, and no staging"
                ])
            #expect(load(toml: "[acme]\nstaging = false\n\(toml)\n").faults == [])
        }
        #expect(load(toml: "[acme]\nstaging = 1\nemail = 'a@b.c'\n").faults.count == 1)
        #expect(load(environment: ["ACME_STAGING": "perhaps"]).faults == [])
    }

    @Test("what belongs into the tables of several authorities is a fault beside them")
    func besideAuthorities() {
        let files = ["eab": "c2VjcmV0LWhtYWMta2V5", "/ca.pem": "none"]
        for key in [
            "directory = 'letsencrypt'", "staging-directory = 'https://a.test/'", "ca-file = '/ca.pem'", "eab-key-id = 'k'",
            "eab-key-file = 'eab'",
        ] {
            let faults = load(toml: "[acme]\n\(key)\n[[acme.ca]]\ndirectory = 'letsencrypt'\n", files: files).faults
            #expect(
                faults.count == 1 && faults[0].contains("gateway.toml:8:1: ") && faults[0].contains(": stands beside [[acme.ca]]; "),
                "\(faults)")
        }
    }

    @Test("a password in a directory's URL is not repeated")
    func password() {
        for url in [
            "https://me:sEcReT@ca.example.com/dir?t=sEcReT", "https://me:sEc ReT^sEcReT@ca.example.com/dir", "me:sEcReT@ca.example.com",
        ] {
            let faults = load(["acme-directory": [url]]).faults
            #expect(faults.count == 1 && faults[0].contains("@ca.example.com") && !faults[0].contains("ReT"), "\(faults)")
        }
    }

    @Test("challenges in order; unknown ones and those that nobody can answer are faults")
    func challenges() throws {
        #expect(try #require(load(["acme-email": ["a@b.c"], "acme-challenges": ["http-01"]]).acme).challenges == [.http01])
        #expect(
            try #require(load(["acme-email": ["a@b.c"]], environment: ["ACME_CHALLENGES": "http-01, tls-alpn-01"]).acme).challenges
                == [.http01, .tlsALPN01])
        #expect(load(["acme-email": ["a@b.c"], "acme-challenges": ["http-02"]]).faults.first?.contains("http-02") == true)
        #expect(load(["acme-email": ["a@b.c"], "acme-challenges": ["dns-01"]]).faults.first?.contains("[acme.dns]") == true)
        #expect(load(["acme-email": ["a@b.c"], "acme-challenges": [" ,"]]).faults.count == 1)
    }

    @Test("a cluster leaves TLS-ALPN-01 out, and five gateways of equal names are warned")
    func cluster() throws {
        func peers(_ count: Int) -> String {
            let list = (1...count).map { #"{ address = "192.0.2.\#($0)", account_thumbprint = "\#(Self.thumbprint)" }"# }
            return "[acme]\nemail = 'a@b.c'\n[cluster]\npeers = [\(list.joined(separator: ", "))]\n"
        }
        let two = load(toml: peers(1))
        let acme = try #require(two.acme)
        #expect(acme.challenges == [.http01] && acme.cluster.peers.map { "\($0.address)" } == ["192.0.2.1:80"])
        #expect(two.warnings.isEmpty)
        #expect(load(toml: peers(4)).warnings.first?.contains("gateway-name") == true)
        #expect(load(toml: peers(4).replacing("[acme]", with: "[acme]\ngateway-name = 'gw1.example.org'")).warnings.isEmpty)
        #expect(load(toml: peers(33)).faults.count == 1)
        #expect(load(toml: peers(1).replacing(Self.thumbprint, with: "short")).faults.first?.contains("certs account") == true)
        #expect(load(toml: peers(1).replacing("192.0.2.1", with: "gateway")).faults.count == 1)
        #expect(load(toml: "[cluster]\npeers = [{ address = '192.0.2.1' }]\n").faults.count == 1)
        #expect(load(toml: "[acme]\nemail = 'a@b.c'\nemails = 1\n").faults.count == 1)
        #expect(load(toml: "[acme]\nprofile = 'x'\n").warnings.first?.contains("ACME is off") == true)
    }
}
