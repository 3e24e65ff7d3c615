import Glibc
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite struct AdminSocketTests {
    private let temporary = TemporaryDirectory()
    private let group = MultiThreadedEventLoopGroup.singleton
    /// The other tests may keep every core busy for a while.
    private let patience = TimeAmount.minutes(1)
    private var path: String { temporary.file("admin.sock") }

    private func ask(_ request: AdminRequest) async throws -> String {
        String(decoding: try await AdminClient.ask(request, at: path, group: group, timeLimit: patience), as: UTF8.self)
    }

    @Test("a verb is answered, on a socket of mode 0600; an unknown one is refused by name")
    func verbs() async throws {
        let socket = try await AdminSocket.start(path: path, group: group, timeLimit: patience)
        socket.register("echo") { Array("{\"said\":\"\($0.arguments?["text"] ?? "")\"}".utf8) }
        socket.register("fail") { _ in throw AdminFault(error: "no") }
        #expect(TemporaryDirectory.mode(path) == 0o600)
        #expect(try await ask(AdminRequest(verb: "echo", arguments: ["text": "hi"])) == #"{"said":"hi"}"#)
        await #expect(throws: AdminFault(error: "no")) { try await ask(AdminRequest(verb: "fail")) }
        await #expect(throws: AdminFault(error: "there is no verb \"x\"; use one of echo, fail")) { try await ask(AdminRequest(verb: "x")) }
        await socket.close()
        #expect(!SystemFiles.exists(path))
    }

    @Test("a dead socket is replaced, a live one is an error")
    func staleAndLive() async throws {
        let dead = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        let address = try SocketAddress(unixDomainSocketPath: path)
        let bound = address.withSockAddr { bind(dead, $0, socklen_t($1)) }
        close(dead)
        #expect(bound == 0)
        #expect(SystemFiles.exists(path))
        let live = try await AdminSocket.start(path: path, group: group, timeLimit: patience)
        await #expect(throws: AdminFault.self) { try await AdminSocket.start(path: path, group: group, timeLimit: patience) }
        await live.close()
    }

    @Test("garbage is answered with an error and endless requests are cut off")
    func garbage() async throws {
        let socket = try await AdminSocket.start(path: path, group: group, timeLimit: patience)
        #expect(try await raw(Array("not json\n".utf8)).contains("error"))
        #expect(try await raw([0xFF, 0x00, 0x0A]).contains("error"))
        #expect(try await raw([UInt8](repeating: 0x20, count: AdminSocket.maximumRequest + 1)) == "")
        await socket.close()
    }

    @Test("a request of many pieces is answered; the client says when one is too long")
    func longRequests() async throws {
        let socket = try await AdminSocket.start(path: path, group: group, timeLimit: patience)
        socket.register("count") { Array("{\"count\":\($0.arguments?["text"]?.utf8.count ?? 0)}".utf8) }
        // Two files of a certificate and its key, every byte of them escaped.
        let text = String(repeating: "\n", count: 510 * 1024)
        #expect(try await ask(AdminRequest(verb: "count", arguments: ["text": text])) == #"{"count":522240}"#)
        let fault = AdminFault(error: "the request is larger than the \(AdminSocket.maximumRequest) bytes that a process takes")
        await #expect(throws: fault) { try await ask(AdminRequest(verb: "count", arguments: ["text": text + text])) }
        await socket.close()
    }

    @Test("a path too long for a Unix socket is an error that says so")
    func longPath() async throws {
        let long = temporary.file(String(repeating: "x", count: 120))
        await #expect(throws: AdminFault.self) { try await AdminSocket.start(path: long, group: group) }
    }

    /// Sends bytes and gives what comes back until the other side closes.
    private func raw(_ bytes: [UInt8]) async throws -> String {
        let channel = try await ClientBootstrap(group: group).connect(unixDomainSocketPath: path) { channel in
            channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel) }
        }
        return try await channel.executeThenClose { inbound, outbound in
            try? await outbound.write(ByteBuffer(bytes: bytes))
            var answer = ""
            do {
                for try await buffer in inbound { answer += String(buffer: buffer) }
            } catch let error as IOError where error.errnoCode == ECONNRESET {}
            return answer
        }
    }
}
