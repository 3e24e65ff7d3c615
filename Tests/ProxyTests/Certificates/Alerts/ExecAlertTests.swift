import FoundationEssentials
import Glibc
import Proxy
import Testing

@Suite(.timeLimit(.minutes(1)), .serialized) struct ExecAlertTests {
    private let directory: ScratchDirectory
    private let notice = AlertNotice(
        CertificateAlert(.expired, name: "a.example; $(touch x)", level: .expired, notAfter: testNow, remaining: -1), host: "gw",
        time: testNow,
        id: "1")

    init() throws { directory = try ScratchDirectory() }

    private func run(_ script: String, limit: Duration = .seconds(300)) async throws -> Result<AlertReceipt, AlertFault> {
        try directory.write("#!/bin/sh\n" + script, to: "tell", mode: 0o700)
        return await ExecAlert(program: directory.file("tell"), limit: limit).send(notice)
    }

    private func reason(_ result: Result<AlertReceipt, AlertFault>) -> String {
        if case .failure(let fault) = result { fault.reason } else { "" }
    }

    @Test("the alert is on standard input and in the environment, which has nothing else; output is told")
    func program() async throws {
        let result = try await run(
            "cat > \(directory.file("input"))\n/usr/bin/env > \(directory.file("variables"))\necho told; echo twice >&2")
        #expect(try result.get() == AlertReceipt(output: "told\\u{A}twice"))
        #expect(try directory.read("input") == String(decoding: notice.json, as: UTF8.self) + "\n")
        let variables = try directory.read("variables").split(separator: "\n")
        #expect(variables.contains("KAKUREMICHI_NAME=a.example; $(touch x)") && variables.contains("KAKUREMICHI_EVENT=expired"))
        #expect(!variables.contains { $0.hasPrefix("HOME=") || $0.hasPrefix("USER=") })
    }

    @Test("a status that is not 0 is a failure with the output, escaped and bounded")
    func status() async throws {
        let fault = reason(try await run("printf '\\033[31mno\\n'; head -c 100000 /dev/zero | tr '\\0' x; exit 3"))
        #expect(fault.contains("ended with status 3") && fault.contains("\\u{1B}[31mno") && fault.utf8.count < 5_000)
        #expect(reason(try await run("kill -9 $$")).contains("killed by signal 9"))
        try directory.write("", to: "tell", mode: 0o600)
        let missing = ExecAlert(program: directory.file("gone"))
        #expect(reason(await missing.send(notice)).contains("cannot be run"))
    }

    @Test("what hangs is killed at the limit with all that it began, and reaped")
    func hangs() async throws {
        let script = "sleep 1000 & echo $$ $! > \(directory.file("ids")); trap '' TERM; wait"
        let fault = reason(try await run(script, limit: .milliseconds(500)))
        #expect(fault.contains("did not end within"))
        let ids = try directory.read("ids").split(whereSeparator: { $0 == " " || $0 == "\n" }).compactMap { pid_t($0) }
        #expect(ids.count == 2)
        // The child is reaped by whoever adopts it.
        #expect(kill(ids[0], 0) != 0 && errno == ESRCH)
        await eventually { kill(ids[1], 0) != 0 || isZombie(ids[1]) }
    }

    private func isZombie(_ process: pid_t) -> Bool {
        ((try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ") Z").contains(") Z")
    }

    @Test("no descriptor of ours is inherited, not even one without O_CLOEXEC")
    func descriptors() async throws {
        let open = Glibc.open("/etc/hostname", O_RDONLY)
        defer { close(open) }
        let result = try await run("for each in /proc/$$/fd/*; do readlink $each; done; exit 0")
        #expect(try !result.get().output.contains("hostname"))
    }
}
