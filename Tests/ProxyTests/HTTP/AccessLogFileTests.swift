import FoundationEssentials
import Glibc
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite(.timeLimit(.minutes(1))) struct AccessLogFileTests {
    private let temporary = TemporaryDirectory()
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    private struct Line: Decodable {
        var time, id, client, host, method, path: String
        var status: Int
        var bytesIn, bytesOut: Int
        var connectMs, headMs: Double?
        var totalMs: Double
        var route, agent, error, tls: String?
        var `protocol`: String
        var dropped: Int?
    }

    private func log(_ path: String) throws -> AccessLogFile { try AccessLogFile(path: path, eventLoop: loop, logger: .silent) }

    private func text(_ path: String) throws -> String { String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self) }

    private func lines(_ text: String) throws -> [Line] {
        try text.split(separator: "\n").map { try JSONDecoder().decode(Line.self, from: Data($0.utf8)) }
    }

    @Test("a record is a line, without the query")
    func line() async throws {
        let path = temporary.file("access.log")
        let log = try log(path)
        log.write(
            RequestRecord(
                id: "1f", client: "192.0.2.1", host: "app.example.com", method: "GET", path: "/a%2Fb?token=x", status: 200, bytesIn: 3,
                bytesOut: 4, connect: .microseconds(1), head: .microseconds(12_034), total: .seconds(2), agent: "10.1.0.2",
                route: "*.example.com", protocolName: "h2", tlsVersion: "1.3", time: (1_700_000_000, 7_900_000)))
        log.write(RequestRecord(id: "20", client: "::1", error: "header timeout", time: (1_700_000_000, 0)))
        await log.close(within: .seconds(10))
        #expect(
            try text(path) == """
                {"time":"2023-11-14T22:13:20.007Z","id":"1f","client":"192.0.2.1","host":"app.example.com","method":"GET","path":"/a%2Fb",\
                "status":200,"bytesIn":3,"bytesOut":4,"connectMs":0.001,"headMs":12.034,"totalMs":2000.000,"route":"*.example.com",\
                "agent":"10.1.0.2","protocol":"h2","tls":"1.3"}
                {"time":"2023-11-14T22:13:20.000Z","id":"20","client":"::1","host":"","method":"","path":"","status":0,"bytesIn":0,\
                "bytesOut":0,"totalMs":0.000,"protocol":"http/1.1","error":"header timeout"}

                """)
        #expect(TemporaryDirectory.mode(path) == 0o640)
        log.write(RequestRecord(id: "21", client: "::1"))
        #expect(log.counters == .init(written: 2, dropped: 1, writeErrors: 0))
    }

    @Test("what a client says is escaped and cut")
    func hostile() async throws {
        let path = temporary.file("access.log")
        let log = try log(path)
        let paths = [
            "/\"\\\u{0}\n\u{7F}\u{85}\u{202E}\u{2028}é", String(repeating: "a", count: 5000),
            String(decoding: [0x2F, 0xFF], as: UTF8.self),
        ]
        for text in paths { log.write(RequestRecord(id: "1", client: "::1", host: text, path: text)) }
        await log.flush(within: .seconds(10))
        let written = try text(path)
        #expect(written.contains(#""path":"/\"\\\u0000\n\u007f\u0085\u202e\u2028é""#))
        let lines = try lines(written)
        #expect(lines.map(\.path)[0] == paths[0])
        #expect(lines[1].path.utf8.count <= 1024 + 3 && lines[1].path.hasSuffix("…"))
        #expect(lines[2].path == "/\u{FFFD}")
    }

    @Test("a file that was moved away is left, and one of its name is made")
    func reopen() async throws {
        let path = temporary.file("access.log")
        let log = try log(path)
        log.write(RequestRecord(id: "1", client: "::1"))
        await log.flush(within: .seconds(10))
        #expect(rename(path, path + ".1") == 0)
        log.reopen()
        log.write(RequestRecord(id: "2", client: "::1"))
        await log.flush(within: .seconds(10))
        #expect(try lines(try text(path + ".1")).map(\.id) == ["1"])
        #expect(try lines(try text(path)).map(\.id) == ["2"])
    }

    @Test("a disk that is full loses records, and they are counted")
    func full() async throws {
        let log = try log("/dev/full")
        for id in 0..<3 { log.write(RequestRecord(id: "\(id)", client: "::1")) }
        await log.flush(within: .seconds(10))
        #expect(log.counters == .init(written: 0, dropped: 3, writeErrors: 1))
    }

    @Test("a file that cannot be opened is a fault at the start")
    func noFile() {
        let path = temporary.file("missing/access.log")
        let error = #expect(throws: (any Error).self) { try log(path) }
        let message = "the access log \(path): cannot be written: No such file or directory; make its directory, or choose another path"
        #expect(error.map { "\($0)" } == message)
    }

    @Test("a writer that hangs holds nobody up: the queue is bounded, and a line says how many are missing")
    func hanging() async throws {
        var ends: [CInt] = [0, 0]
        #expect(pipe(&ends) == 0)
        let (reader, writer) = (ends[0], ends[1])
        defer {
            close(reader)
            close(writer)
        }
        let log = try log("/proc/self/fd/\(writer)")
        func write(_ count: Int) { for _ in 0..<count { log.write(RequestRecord(id: "1", client: "192.0.2.1", host: "app.example.com")) } }
        write(2000)
        await log.flush(within: .milliseconds(50))
        let early = log.counters.written
        write(5000)
        #expect(early < 2000 && log.counters.dropped > 0)
        let text = try await NIOThreadPool.singleton.runIfActive { () -> String in
            var bytes: [UInt8] = []
            var piece = [UInt8](repeating: 0, count: 64 * 1024)
            // The last line that there will be.
            while log.counters.written + log.counters.dropped < 7000 || log.counters.written > bytes.count(where: { $0 == 0x0A }) {
                // What is written is counted behind the bytes: there may be nothing more to read.
                var waits = pollfd(fd: reader, events: Int16(POLLIN), revents: 0)
                guard poll(&waits, 1, 10) > 0 else { continue }
                let count = read(reader, &piece, piece.count)
                guard count > 0 else { break }
                bytes += piece[..<count]
            }
            return String(decoding: bytes, as: UTF8.self)
        }
        let lines = try lines(text)
        #expect(lines.count + lines.reduce(0) { $0 + ($1.dropped ?? 0) } == 7000)
    }
}
