import Glibc
import NIOCore
import NIOPosix
import NIOWireGuard
import Proxy
import Testing

@Suite(.timeLimit(.minutes(1))) struct CaptureTests {
    private let temporary = TemporaryDirectory()
    private let group = MultiThreadedEventLoopGroup.singleton
    private var path: String { temporary.file("admin.sock") }

    /// A whole file: two packets and the counts.
    private func stream(dropped: UInt64 = 3) -> [UInt8] {
        var writer = PcapngWriter()
        writer.begin(application: "test", interface: "wg", filter: nil, snapLength: 100)
        let packet = [UInt8](repeating: 0x45, count: 33)
        for isInbound in [true, false] {
            writer.packet(packet.span.bytes, at: 1, isInbound: isInbound, comment: Array("to x".utf8), snapLength: 100)
        }
        var counts = PacketCapture.Counts()
        counts.dropped = dropped
        writer.statistics(counts, at: 2, end: .stopped)
        return writer.take()
    }

    /// A process that answers `capture` with `bytes` and then waits for the client's word, or closes.
    private func serve(_ bytes: [UInt8], waits: Bool) async throws -> AdminSocket {
        let socket = try await AdminSocket.start(path: path, group: group, timeLimit: .minutes(1))
        socket.registerStream("capture") { _, stream in
            stream.write(Array("{}\n".utf8))
            stream.write(bytes)
            if waits { stream.ended.whenComplete { _ in stream.finish() } } else { stream.finish() }
        }
        return socket
    }

    private func run(_ out: String, stop: CInt = -1) async throws -> CaptureClient.Summary {
        let path = path
        return try await NIOThreadPool.singleton.runIfActive {
            let client = try CaptureClient(PacketCapture.Options(), at: path)
            return try client.run(to: try CaptureOutput(out), stop: stop) { _ in }
        }
    }

    @Test("a stream that comes in pieces is cut at its blocks' ends", arguments: [1, 2, 7, 64, 100_000])
    func blocks(piece: Int) throws {
        let stream = stream()
        var blocks = CaptureBlocks()
        var taken: [UInt8] = []
        var position = 0
        while position < stream.count {
            blocks.append(stream[position..<min(position + piece, stream.count)])
            position += piece
            taken += try blocks.take()
        }
        #expect(taken == stream)
        #expect(blocks.packets == 2 && blocks.dropped == 3 && blocks.end == "ended: stopped" && !blocks.isInsideBlock)
    }

    @Test("what is no capture is refused", arguments: [[UInt8](repeating: 0, count: 12), [UInt8](repeating: 0xFF, count: 12)])
    func garbage(bytes: [UInt8]) {
        var blocks = CaptureBlocks()
        blocks.append(bytes)
        #expect(throws: AdminFault.self) { try blocks.take() }
    }

    @Test("statistics with options that lie about their length are harmless")
    func badOptions() throws {
        var block: [UInt8] = [5, 0, 0, 0, 32, 0, 0, 0] + [UInt8](repeating: 0, count: 12) + [5, 0, 0xFF, 0xFF, 0, 0, 0, 0]
        block += [32, 0, 0, 0]
        var blocks = CaptureBlocks()
        blocks.append(block)
        #expect(try blocks.take() == block)
    }

    @Test("the client writes a new file of mode 0600 and reports what is in it")
    func file() async throws {
        let socket = try await serve(stream(), waits: false)
        let out = temporary.file("a.pcapng")
        let summary = try await run(out)
        #expect(summary.packets == 2 && summary.dropped == 3 && summary.end == "ended: stopped")
        #expect(TemporaryDirectory.mode(out) == 0o600)
        #expect(try SystemFiles.read(out).bytes == stream())
        await socket.close()
    }

    @Test("an existing file and a symbolic link are refused and stay as they are, with the next step")
    func existing() async throws {
        let socket = try await serve(stream(), waits: true)
        let (file, link) = (temporary.file("there"), temporary.file("link"))
        try SystemFiles.create(file, [1])
        #expect(symlink(temporary.file("elsewhere"), link) == 0)
        for out in [file, link] {
            await #expect(throws: FileError(path: out, problem: .exists)) { try await run(out) }
        }
        #expect(FileError(path: file, problem: .exists).description.contains("choose another path"))
        #expect(try SystemFiles.read(file).bytes == [1])
        #expect(!SystemFiles.exists(temporary.file("elsewhere")))
        await socket.close()
    }

    @Test("a process that dies in the middle of a packet leaves a file of whole packets")
    func cutOff() async throws {
        let stream = stream()
        let socket = try await serve(Array(stream.dropLast(150)), waits: false)
        let out = temporary.file("a.pcapng")
        let summary = try await run(out)
        #expect(summary.end == nil && summary.packets == 1)
        let kept = try SystemFiles.read(out).bytes
        #expect(kept.count < stream.count - 150 && stream.starts(with: kept))
        await socket.close()
    }

    @Test("the user's word ends the stream, and what is left still comes")
    func stop() async throws {
        let socket = try await serve(stream(), waits: true)
        var pair: [CInt] = [-1, -1]
        #expect(pipe(&pair) == 0 && write(pair[1], "\n", 1) == 1)
        let summary = try await run(temporary.file("a.pcapng"), stop: pair[0])
        #expect(summary.end == "ended: stopped")
        close(pair[0])
        close(pair[1])
        await socket.close()
    }

    @Test("a client that is gone ends the stream at once")
    func gone() async throws {
        let socket = try await AdminSocket.start(path: path, group: group, timeLimit: .minutes(1))
        let ended = group.next().makePromise(of: Void.self)
        socket.registerStream("capture") { _, stream in
            stream.write(Array("{}\n".utf8))
            stream.ended.cascade(to: ended)
        }
        let channel = try await ClientBootstrap(group: group).connect(unixDomainSocketPath: path).get()
        try await channel.writeAndFlush(ByteBuffer(string: "{\"verb\":\"capture\"}\n"))
        try await channel.close()
        try await ended.futureResult.get()
        await socket.close()
    }

    @Test("a verb for streams that throws is answered with its fault")
    func fault() async throws {
        let socket = try await AdminSocket.start(path: path, group: group, timeLimit: .minutes(1))
        socket.registerStream("capture") { _, _ in throw AdminFault(error: "no") }
        await #expect(throws: AdminFault(error: "no")) { try await run(temporary.file("a.pcapng")) }
        #expect(!SystemFiles.exists(temporary.file("a.pcapng")))
        await socket.close()
    }

    @Test("a stream outlives the time limit of a request")
    func timeLimit() async throws {
        let socket = try await AdminSocket.start(path: path, group: group, timeLimit: .milliseconds(200))
        let bytes = stream()
        socket.registerStream("capture") { [group] _, stream in
            stream.write(Array("{}\n".utf8))
            group.next().scheduleTask(in: .milliseconds(600)) {
                stream.write(bytes)
                stream.finish()
            }
        }
        var attempt = 0
        while true {
            attempt += 1
            do {
                #expect(try await run(temporary.file("\(attempt).pcapng")).end == "ended: stopped")
                break
            } catch is AdminFault where attempt < 100 {
                // A busy machine may not even have begun the stream within the limit.
            }
        }
        await socket.close()
    }

    @Test("options survive the way to the process, and what is out of range is refused there too")
    func options() throws {
        var options = PacketCapture.Options()
        options.filters = [.port(80), try #require(CaptureFilter("fd00::/64"))]
        options.maximumPackets = 7
        options.duration = .seconds(90)
        options.snapLength = 96
        let read = try CaptureVerb.options(from: CaptureVerb.arguments(options))
        #expect(read.filters == options.filters && read.maximumPackets == 7 && read.duration == .seconds(90) && read.snapLength == 96)
        #expect(read.maximumBytes == PacketCapture.defaultBytes)
        for (key, value) in [
            ("filters", "nonsense"), ("filters", String(repeating: "1,", count: 17)), ("packets", "0"), ("bytes", "9"), ("seconds", "0"),
            ("seconds", "86401"), ("snaplen", "0"), ("snaplen", "x"),
        ] {
            #expect(throws: AdminFault.self, "\(key)") { try CaptureVerb.options(from: [key: value]) }
        }
    }
}
