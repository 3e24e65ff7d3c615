import FoundationEssentials
import Glibc
import Inet
import NIOWireGuard
import Proxy
import Testing

@Suite(.serialized) struct HookProcessTests {
    private let directory = TemporaryDirectory()

    private func script(_ text: String) throws -> String {
        let path = directory.file("hook")
        SystemFiles.remove(path)
        try SystemFiles.create(path, Array(("#!/bin/sh\n" + text + "\n").utf8))
        #expect(chmod(path, 0o700) == 0)
        return path
    }

    private func run(
        _ text: String, _ arguments: [String] = [], environment: [String: String] = ["PATH": "/usr/bin:/bin"], input: String? = nil,
        limit: Duration = .seconds(300)
    ) async throws -> Result<HookProcess.Output, HookFault> {
        let path = try script(text)
        do throws(HookFault) {
            return .success(
                try await HookProcess.run(
                    path: path, arguments: arguments, environment: environment, input: input.map { Array($0.utf8) }, limit: limit))
        } catch {
            return .failure(error)
        }
    }

    private func problem(_ result: Result<HookProcess.Output, HookFault>) -> HookFault.Problem? {
        if case .failure(let fault) = result { fault.problem } else { nil }
    }

    @Test("arguments as they are, the given environment alone, and both outputs come back")
    func ordinary() async throws {
        let output = try await run(
            #"printf '%s|' "$@"; env | cut -d= -f1 | sort | tr '\n' ' '; echo to-error >&2"#, ["a b", "$(id)", "*;"],
            environment: ["PATH": "/usr/bin:/bin", "ONLY": "this"]
        ).get()
        #expect(output.text.hasPrefix("a b|$(id)|*;|ONLY PATH PWD ") && output.text.hasSuffix("to-error"))
    }

    @Test("standard input is what is given, and empty without; a program that does not read it is no harm")
    func input() async throws {
        let long = String(repeating: "x", count: 300_000)
        #expect(try await run("wc -c", input: long).get().text == "300000")
        #expect(try await run("wc -c").get().text == "0")
        #expect(try await run("exec true", input: long).get().bytes.isEmpty)
        #expect(try await run("exec 0<&-; exec 0</dev/null; echo fine", input: long).get().text == "fine")
    }

    @Test("a status other than 0, a signal, and a path that is none say so, with the output escaped and cut")
    func failures() async throws {
        let failed = try await run(#"printf 'bad \033[31m'; exit 3"#)
        #expect(problem(failed) == .failed(status: 3))
        guard case .failure(let fault) = failed else { return }
        #expect("\(fault)".hasSuffix(#"ended with status 3: bad \u{1B}[31m"#))
        #expect(problem(try await run("kill -TERM $$")) == .killed(signal: SIGTERM))
        let flood = try await run("head -c 1000000 /dev/zero | tr '\\0' y; exit 1")
        guard case .failure(let long) = flood else { return }
        #expect(long.output.utf8.count == HookProcess.maximumOutput)
        do throws(HookFault) {
            _ = try await HookProcess.run(
                path: directory.file("none"), arguments: [], environment: [:], input: nil, limit: .seconds(5))
            Issue.record("it ran")
        } catch {
            #expect(error.problem == .notStarted("No such file or directory"))
        }
    }

    @Test("at the limit the program and its children are killed, one that ignores signals and one in the background too")
    func limit() async throws {
        let start = SystemEdges.now
        let result = try await run(
            "trap '' TERM INT HUP; sh -c 'echo $$; exec tail -f /dev/null' & wait; tail -f /dev/null", limit: .seconds(1))
        #expect(problem(result) == .timedOut(.seconds(1)) && SystemEdges.now - start < .seconds(100))
        guard case .failure(let fault) = result else { return }
        let child = try #require(pid_t(fault.output))
        try expectGone(child)
    }

    @Test("what a program leaves in the background ends with it, and does not hold up the answer")
    func background() async throws {
        let start = SystemEdges.now
        let output = try await run("tail -f /dev/null & echo $!").get()
        #expect(SystemEdges.now - start < .seconds(100))
        try expectGone(try #require(pid_t(output.text)))
    }

    @Test("descriptors of ours are not passed on, close-on-exec or not")
    func descriptors() async throws {
        let open = Glibc.open("/dev/null", O_RDONLY)
        defer { close(open) }
        #expect(try await run("exec ls /proc/self/fd").get().text.split(whereSeparator: { !$0.isNumber }) == ["0", "1", "2", "3"])
    }

    @Test("a cancelled task kills its program, or does not begin it")
    func cancelled() async throws {
        let path = try script("echo $$ >\(directory.file("process")); exec tail -f /dev/null")
        func start() -> Task<String?, Never> {
            Task {
                await failureText {
                    _ = try await HookProcess.run(
                        path: path, arguments: [], environment: ["PATH": "/usr/bin:/bin"], input: nil, limit: .seconds(60))
                }
            }
        }
        let early = start()
        early.cancel()
        #expect(await early.value?.hasSuffix("the work was cancelled") == true)
        SystemFiles.remove(directory.file("process"))
        let late = start()
        var number: [UInt8] = []
        for _ in 0..<1_000 where number.isEmpty {
            number = (try? SystemFiles.read(directory.file("process")).bytes) ?? []
            poll(nil, 0, 10)
        }
        late.cancel()
        #expect(await late.value?.hasSuffix("the work was cancelled") == true)
        try expectGone(try #require(pid_t(String(decoding: number.dropLast(), as: UTF8.self))))
    }

    @Test("no zombies, and no descriptors of ours that stay open")
    func leaks() async throws {
        _ = try await run("true")
        let before = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
        for _ in 0..<20 { _ = try await run("true", input: "x") }
        let after = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
        // Other suites open and close theirs meanwhile.
        #expect(after < before + 20)
    }

    /// It was killed; whoever inherited it reaps it, which may take a moment.
    private func expectGone(_ process: pid_t) throws {
        for _ in 0..<200 {
            guard let status = try? SystemFiles.read("/proc/\(process)/stat").bytes else { return }
            if String(decoding: status, as: UTF8.self).contains(") Z ") { return }
            poll(nil, 0, 10)
        }
        Issue.record("\(process) is still there")
    }
}
