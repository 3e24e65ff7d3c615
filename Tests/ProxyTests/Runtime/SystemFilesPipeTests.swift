import Glibc
import Inet
import Logging
import NIOEmbedded
import NIOPosix
import Proxy
import Testing

@Suite struct SystemFilesPipeTests {
    private let temporary = TemporaryDirectory()

    private func pipe(_ name: String) -> String {
        let path = temporary.file(name)
        #expect(mkfifo(path, 0o600) == 0)
        return path
    }

    @Test("a pipe that nobody writes into is an error that names it, after its time", .timeLimit(.minutes(1)))
    func silentPipe() {
        let path = pipe("pipe")
        let error = #expect(throws: FileError.self) { try SystemFiles.read(path, patience: .milliseconds(50)) }
        #expect(error?.problem == .noAnswer)
        #expect(error.map { "\($0)" }?.hasPrefix("\(path): has not ended within 10 s; see to it") == true)
    }

    @Test("a pipe whose writer neither goes on nor ends is an error, too", .timeLimit(.minutes(1)))
    func unfinishedPipe() {
        let path = pipe("pipe")
        // Both ends, so that the opening does not wait.
        let writer = open(path, O_RDWR | O_CLOEXEC)
        defer { close(writer) }
        #expect(write(writer, "half", 4) == 4)
        #expect(throws: FileError(path: path, problem: .noAnswer)) { try SystemFiles.read(path, patience: .milliseconds(50)) }
    }

    @Test("a pipe is read to its end, whenever its writer comes, named or as /dev/fd of a shell", .timeLimit(.minutes(1)))
    func pipes() async throws {
        let path = pipe("pipe")
        let text = String(repeating: "0123456789", count: 20_000)
        // Both begin now, whatever else waits for the threads of tasks: the reader is not patient for ever.
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let written = NIOThreadPool.singleton.runIfActive(eventLoop: loop) {
            let writer = open(path, O_WRONLY | O_CLOEXEC)
            var bytes = Array(text.utf8)[...]
            while !bytes.isEmpty {
                let count = bytes.withUnsafeBytes { Glibc.write(writer, $0.baseAddress, $0.count) }
                guard count > 0 else { break }
                bytes = bytes.dropFirst(count)
            }
            close(writer)
        }
        let contents = try await NIOThreadPool.singleton.runIfActive(eventLoop: loop) { try SystemFiles.read(path) }.get()
        try await written.get()
        #expect(contents.bytes == Array(text.utf8))
        #expect(!contents.isWorldReadable)

        var ends: [CInt] = [0, 0]
        #expect(Glibc.pipe(&ends) == 0)
        defer { close(ends[0]) }
        #expect(write(ends[1], "a key", 5) == 5)
        close(ends[1])
        #expect(try SystemFiles.read("/dev/fd/\(ends[0])").bytes == Array("a key".utf8))
        #expect(try SystemFiles.read("/dev/null").bytes == [])
    }

    @Test("what has no end is bounded by its size")
    func endless() {
        #expect(throws: FileError(path: "/dev/zero", problem: .tooLarge(limit: SystemFiles.maximumSize))) {
            try SystemFiles.read("/dev/zero")
        }
    }

    @Test("the state's files must be files; a pipe in the place of one is told of and does not hold up the start", .timeLimit(.minutes(1)))
    func state() throws {
        let path = pipe("endpoints")
        #expect(throws: FileError(path: path, problem: .notRegular)) { try SystemFiles.read(path, isRegular: true) }
        let lines = LineCollector()
        let logger = Logger(label: "test", factory: { _ in lines })
        let loop = EmbeddedEventLoop()
        #expect(EndpointStore(path: path, peers: [], eventLoop: loop, logger: logger).endpoints.isEmpty)
        #expect(
            lines.all.count == 1 && lines.all[0].contains("endpoints: is a pipe, a device or a socket, where a file must be; remove it"))
        let timestamps = pipe("timestamps")
        _ = TimestampStore(
            path: timestamps, peers: [], eventLoop: loop, logger: logger, wallTime: { WallTime(seconds: 1_800_000_000, nanoseconds: 0) })
        #expect(lines.all.count == 2 && lines.all[1].contains("is a pipe, a device or a socket"))
        #expect(SystemFiles.exists(timestamps + ".damaged") && !SystemFiles.exists(timestamps))
    }
}
