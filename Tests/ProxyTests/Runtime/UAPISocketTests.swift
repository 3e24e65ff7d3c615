import Glibc
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Noise
import Proxy
import Testing
import WGUserspace

@Suite struct UAPISocketTests {
    private let temporary = TemporaryDirectory()
    private let group = MultiThreadedEventLoopGroup.singleton
    /// The other tests may keep every core busy for a while.
    private let patience = TimeAmount.minutes(1)
    private var path: String { temporary.file("wg0.sock") }
    private var client: UAPIClient { UAPIClient(directories: [temporary.path]) }

    private static let key = "e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a"
    private static let peer = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33"

    /// What was applied, and an interface that has a port.
    private final class Recorder: Sendable {
        let requests = NIOLockedValueBox<[UAPI.SetRequest]>([])
        let fault: UAPI.Fault?
        init(fault: UAPI.Fault? = nil) { self.fault = fault }

        var service: UAPIService {
            let loop = MultiThreadedEventLoopGroup.singleton.next()
            return UAPIService {
                loop.makeSucceededFuture(UAPI.State(listenPort: 51820))
            } apply: { request in
                self.requests.withLockedValue { $0.append(request) }
                return self.fault.map { loop.makeFailedFuture($0) } ?? loop.makeSucceededVoidFuture()
            }
        }
    }

    private func start(_ service: UAPIService, limit: TimeAmount? = nil) async throws -> UAPISocket {
        try await UAPISocket.start(
            name: "wg0", directory: temporary.path, group: group, service: service, timeLimit: limit ?? patience)
    }

    @Test("get and set are answered on one connection, one after the other, on a socket of mode 0600 that goes at the end")
    func answers() async throws {
        let recorder = Recorder()
        let socket = try await start(recorder.service)
        #expect(TemporaryDirectory.mode(path) == 0o600)
        let state = "listen_port=51820\nerrno=0\n\n"
        #expect(try await raw("get=1\n\n") == state)
        #expect(
            try await raw("get=1\n\nset=1\nfwmark=7\n\nset=1\nwhat\n\nset=1\nlisten_port=x\n\nget=1\n\n")
                == state + "errno=0\n\nerrno=-71\n\nerrno=-22\n\n" + state)
        #expect(recorder.requests.withLockedValue { $0.map(\.fwmark) } == [7])
        await socket.close()
        #expect(!SystemFiles.exists(path))
    }

    @Test("a client that connects and closes, stops in the middle, or speaks something else disturbs nobody")
    func strangeClients() async throws {
        let recorder = Recorder()
        let socket = try await start(recorder.service)
        #expect(try await raw("") == "")
        #expect(try await raw("set=1\nlisten_port=1\n") == "")
        #expect(try await raw("GET / HTTP/1.1\r\n\r\n") == "")
        #expect(try await raw(String(repeating: "set=1\nx\n\n", count: 5000)) == String(repeating: "errno=-71\n\n", count: 5000))
        #expect(recorder.requests.withLockedValue { $0.isEmpty })
        #expect(try await raw("get=1\n\n").hasSuffix("errno=0\n\n"))
        await socket.close()
    }

    @Test("what the interface refuses is answered with its number")
    func faults() async throws {
        let socket = try await start(Recorder(fault: .portInUse).service)
        #expect(try await raw("set=1\nlisten_port=1\n\n") == "errno=-98\n\n")
        #expect(throws: UAPIClient.Failure.answer(.refused(errno: 98))) {
            try client.apply(UAPI.SetRequest(listenPort: 1), to: "wg0")
        }
        await socket.close()
    }

    @Test("a request over the bound is read over and refused, the connection lives on")
    func oversize() async throws {
        let recorder = Recorder()
        let socket = try await start(recorder.service)
        let line = "public_key=\(Self.peer)\n"
        let lines = String(repeating: line, count: UAPI.maximumRequest / line.utf8.count + 1)
        #expect(try await raw("set=1\n\(lines)\nget=1\n\n") == "errno=-90\n\nlisten_port=51820\nerrno=0\n\n")
        #expect(recorder.requests.withLockedValue { $0.isEmpty })
        await socket.close()
    }

    @Test("a client that is slow or silent is cut off")
    func slowClient() async throws {
        let socket = try await start(Recorder().service, limit: .milliseconds(50))
        #expect(try await raw("set=1\nlisten_port=1\n", closesAfterwards: false) == "")
        #expect(try await raw("", closesAfterwards: false) == "")
        await socket.close()
    }

    @Test("more connections than the bound are closed, and there is room again when others go")
    func connectionBound() async throws {
        let socket = try await start(Recorder().service)
        var open: [any Channel] = []
        for _ in 0...UAPISocket.maximumConnections {
            open.append(try await ClientBootstrap(group: group).connect(unixDomainSocketPath: path).get())
        }
        // Which one of them is too many depends on the order in which the server's loops see them.
        let first = group.next().makePromise(of: Void.self)
        for channel in open { channel.closeFuture.whenSuccess { first.succeed() } }
        try await first.futureResult.get()
        #expect(open.count { $0.isActive } >= UAPISocket.maximumConnections - 1)
        for channel in open { try? await channel.close() }
        var answer = ""
        // The server learns of the closing a moment later.
        while answer.isEmpty { answer = try await raw("get=1\n\n") }
        #expect(answer.hasSuffix("errno=0\n\n"))
        await socket.close()
    }

    @Test("a dead socket is replaced; a live one and a file that is no socket are errors that say so")
    func staleAndLive() async throws {
        let dead = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        let bound = try SocketAddress(unixDomainSocketPath: path).withSockAddr { bind(dead, $0, socklen_t($1)) }
        close(dead)
        #expect(bound == 0 && SystemFiles.exists(path))
        let live = try await start(Recorder().service)
        await #expect(throws: AdminFault(error: "another process answers on \(path); stop it, or give --interface another name")) {
            try await start(Recorder().service)
        }
        #expect(try await raw("get=1\n\n").hasSuffix("errno=0\n\n"))
        await live.close()
        try SystemFiles.create(path, [])
        await #expect(throws: AdminFault(error: "\(path) is in the way and is not a socket; remove it")) {
            try await start(Recorder().service)
        }
        #expect(SystemFiles.exists(path))
    }

    @Test("the client finds the sockets that answer, asks and changes; nobody there is No such device")
    func client() async throws {
        let recorder = Recorder()
        let socket = try await start(recorder.service)
        try SystemFiles.create(temporary.file("other.sock"), [])
        #expect(client.interfaces() == ["wg0"])
        #expect(try client.state(of: "wg0").listenPort == 51820)
        try client.apply(UAPI.SetRequest(listenPort: 9), to: "wg0")
        #expect(recorder.requests.withLockedValue { $0.map(\.listenPort) } == [9])
        await socket.close()
        #expect(throws: UAPIClient.Failure.system(ENODEV)) { try client.state(of: "wg0") }
        #expect(throws: UAPIClient.Failure.system(ENODEV)) { try client.state(of: "../x") }
        #expect(client.interfaces() == [])
    }

    @Test("the system's directory is taken if it is ours to write in; else the user's own, with a note that tells how to change it")
    func directories() throws {
        let system = temporary.file("system")
        let runtime = temporary.file("runtime")
        let environment = ["XDG_RUNTIME_DIR": runtime]
        let missing = try UAPIDirectory.choose(environment: environment, system: system)
        #expect(missing.directory == "\(runtime)/wireguard")
        #expect(
            missing.note
                == "the UAPI socket is in \(runtime)/wireguard, where only kakuremichi wg finds it, as \(system) does not exist; to let wg find it, run as root: install -d -m 0700 -o \(geteuid()) \(system)"
        )
        #expect(TemporaryDirectory.mode(missing.directory) == 0o700)
        try SystemFiles.createDirectory(system)
        let good = try UAPIDirectory.choose(environment: environment, system: system)
        #expect(good.directory == system && good.note == nil)
        chmod(system, 0o770)
        #expect(try UAPIDirectory.choose(environment: environment, system: system).note?.contains("written to by other users") == true)
        chmod(system, 0o700)
        let link = temporary.file("link")
        symlink(system, link)
        #expect(try UAPIDirectory.choose(environment: environment, system: link).note?.contains("symbolic link") == true)
        chmod("\(runtime)/wireguard", 0o777)
        #expect(throws: AdminFault.self) { try UAPIDirectory.choose(environment: environment, system: link) }
        #expect(throws: AdminFault.self) { try UAPIDirectory.choose(environment: [:], system: link) }
        #expect(throws: AdminFault.self) { try UAPIDirectory.choose(environment: ["XDG_RUNTIME_DIR": "here"], system: link) }
    }

    @Test("names are what wg takes for one, and never a path")
    func names() {
        for name in ["wg0", "a", "A_b=c+d.e-f", "123456789012345"] { #expect(UAPIDirectory.isName(name), "\(name)") }
        for name in ["", ".", "..", "a/b", "a b", "1234567890123456", "ä", "a\n", "a:b", "@", "["] {
            #expect(!UAPIDirectory.isName(name), "\(name)")
        }
    }

    /// Sends text and gives what comes back until the other side closes.
    private func raw(_ text: String, closesAfterwards: Bool = true) async throws -> String {
        let channel = try await ClientBootstrap(group: group)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .connect(unixDomainSocketPath: path) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
                        wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            if !text.isEmpty { try? await outbound.write(ByteBuffer(string: text)) }
            if closesAfterwards { outbound.finish() }
            var answer = ""
            do {
                for try await buffer in inbound { answer += String(buffer: buffer) }
            } catch let error as IOError where error.errnoCode == ECONNRESET {}
            return answer
        }
    }
}
