import Glibc
import Proxy
import Testing

/// What is found when the configuration is read, not when it is first needed.
@Suite struct CheckedSettingsTests {
    private static let start = "state = '/s'\n[wireguard]\nconfig = '/g.conf'\n"

    private func load(_ toml: String, files: [String: String] = [:], isRunnable: Bool = true) -> (faults: [String], warnings: [String]) {
        let files = ["/gateway.toml": Self.start + toml, "/g.conf": Fixture.gatewayFile].merging(files) { $1 }
        var input = Fixture.input(["config": ["/gateway.toml"]], files: files)
        if !isRunnable { input.programFault = { ProgramFile.fault($0) } }
        let result = Fixture.gateway(input)
        return (result.faults, result.warnings)
    }

    // MARK: Programs

    @Test("a program that is not there, cannot be run or is none is warned of with its place")
    func programs() throws {
        let temporary = TemporaryDirectory()
        let plain = temporary.file("plain")
        try SystemFiles.create(plain, [])
        let runnable = temporary.file("runnable")
        try SystemFiles.create(runnable, Array("#!/bin/sh\n".utf8))
        chmod(runnable, 0o700)
        let tunnel = "[[tunnel]]\ndomain = 'a.example.com'\nagent = '10.1.0.2'\n"
        let expected = [
            (temporary.file("none"), "cannot be run: No such file or directory; put the program there, or write the path of another one"),
            (plain, "cannot be run: Permission denied; run chmod +x on it, or give this user access"),
            (temporary.path, "is a directory; write the path of a program in it"),
            ("/dev/null", "is not a file; write the path of a program"),
        ]
        for (path, message) in expected {
            let alerts = load(tunnel + "[alerts]\nexec = '\(path)'\n", isRunnable: false)
            #expect(alerts.faults == [] && alerts.warnings == ["/gateway.toml:8:8: exec: \(path) \(message)"])
            let dns = load(
                tunnel + "[acme]\nemail = 'me@example.org'\n[acme.dns]\nprovider = 'exec'\ncommand = '\(path)'\n", isRunnable: false)
            #expect(dns.faults == [] && dns.warnings == ["/gateway.toml:11:11: command: \(path) \(message)"])
        }
        #expect(load(tunnel + "[alerts]\nexec = '\(runnable)'\n", isRunnable: false).warnings == [])
    }

    // MARK: Empty values

    @Test(
        "an empty text where something is needed is a fault with its place",
        arguments: [
            ("access-log = ''", "/gateway.toml:1:14: access-log: is empty; write the path of a file, or -"),
            ("log-level = ''", "/gateway.toml:1:13: log-level: is empty; write trace, debug, info, notice, warning, error, critical"),
            ("metrics-listen = ''", "/gateway.toml:1:18: metrics-listen: is empty; write IP:PORT or off"),
            ("https = ''", "/gateway.toml:1:9: https: is empty; write IP:PORT, or an array of them"),
        ])
    func empty(line: String, fault: String) {
        let toml = line + "\n" + Self.start + "[[tunnel]]\ndomain = 'a.example.com'\nagent = '10.1.0.2'\n"
        #expect(
            Fixture.gateway(Fixture.input(["config": ["/gateway.toml"]], files: ["/gateway.toml": toml, "/g.conf": Fixture.gatewayFile]))
                .faults == [fault])
    }

    @Test("the same in tables, and of flags")
    func emptyElsewhere() {
        let tunnel = "[[tunnel]]\ndomain = 'a.example.com'\nagent = '10.1.0.2'\n"
        let acme = tunnel + "[acme]\nemail = 'me@example.org'\n"
        #expect(
            load(acme + "profile = ''\n").faults
                == ["/gateway.toml:9:11: profile: is empty; write a profile that the CA offers, such as shortlived"])
        #expect(
            load(acme + "ca-file = ''\n").faults == ["/gateway.toml:9:11: ca-file: is empty; write a file with PEM certificates"])
        #expect(
            load(tunnel + "[[certificate]]\ncert = ''\nkey = ''\n").faults == [
                "/gateway.toml:8:8: cert: is empty; write the path of a PEM file",
                "/gateway.toml:9:7: key: is empty; write the path of a PEM file",
            ])
        #expect(
            load(tunnel + "[alerts]\nexec = ''\n").faults == ["/gateway.toml:8:8: exec: is empty; write the absolute path of a program"])
        #expect(Fixture.gateway(Fixture.input(["wg": [""]])).faults == ["--wg: is empty; write the path of a wg-quick file"])
        #expect(
            Fixture.gateway(Fixture.input(["config": [""]])).faults.first == "--config: is empty; give the path of a TOML file")
        // No address is no account.
        #expect(load(tunnel + "[acme]\nemail = ''\n").faults == [])
    }

    @Test("a state directory whose socket could not be bound is a fault, given or not")
    func longState() {
        let long = "/" + String(repeating: "x", count: 96)
        let fault = "the path of the socket in it would have 108 bytes, of at most 107; write a shorter directory"
        let flags = ["wg": ["g.conf"], "route": ["a.example.com=10.1.0.2"]]
        #expect(Fixture.gateway(Fixture.input(flags.merging(["state": [long]]) { $1 })).faults == ["--state: \(fault)"])
        #expect(Fixture.gateway(Fixture.input(flags.merging(["state": [String(long.dropLast())]]) { $1 })).faults == [])
        #expect(
            Fixture.gateway(Fixture.input(flags, environment: ["HOME": long])).faults == [
                "--state: there is no directory for state: the path of the usual one is too long for its socket; give --state DIR"
            ])
    }

    // MARK: Wildcards

    @Test("a wildcard that no challenge is for is warned of, unless it is disabled or a file has it")
    func wildcards() throws {
        let acme = "[acme]\nemail = 'me@example.org'\n"
        func tunnel(_ domain: String, _ more: String = "") -> String { "[[tunnel]]\ndomain = '\(domain)'\nagent = '10.1.0.2'\n\(more)" }
        let warning =
            "/gateway.toml:8:10: domain: no certificate can be ordered for *.example.com: a wildcard needs dns-01; write [acme.dns], "
            + "with dns-01 among the challenges if these are given; or name a certificate that is there"
        let both = tunnel("a.example.com") + tunnel("*.example.com")
        #expect(load(both + acme) == ([], [warning]))
        #expect(load(both) == ([], []))
        #expect(load(tunnel("a.example.com") + tunnel("*.example.com", "enabled = false\n") + acme) == ([], []))
        #expect(load(both + acme + "[acme.dns]\nprovider = 'webhook'\nurl = 'https://hook.example.org/'\n") == ([], []))
        #expect(load(both + acme + "challenges = 'dns-persist-01'\n") == ([], []))

        let temporary = TemporaryDirectory()
        for (name, warnings) in [("*.example.com", []), ("*.example.org", [warning])] {
            let own = try selfSigned([name])
            let (certificate, key) = (temporary.file(name), temporary.file(name + ".key"))
            try SystemFiles.create(certificate, Array(own.certificate.utf8))
            try SystemFiles.create(key, Array(own.key.utf8))
            let pair = "[[certificate]]\ncert = '\(certificate)'\nkey = '\(key)'\n"
            #expect(load(both + acme + pair, files: [certificate: own.certificate, key: own.key]) == ([], warnings))
        }
        let flags = ["wg": ["g.conf"], "route": ["*.example.com=10.1.0.2"], "state": ["/s"], "acme-email": ["me@example.org"]]
        #expect(Fixture.gateway(Fixture.input(flags)).warnings.first?.hasPrefix("--route: no certificate can be ordered for *.") == true)
    }
}
