import Inet
import Logging
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite struct GatewayClusterTests {
    private let token = "abcdefghijklmnopqrstuvwxyz"
    private let thumbprint = String(repeating: "t", count: 43)
    private let scratch: ScratchDirectory
    private let board = ChallengeBoard()
    private let store: CertificateStore

    init() throws {
        scratch = try ScratchDirectory()
        store = try CertificateStore(directory: scratch.path, logger: .silent)
    }

    private func cluster(_ peers: [HTTPStub]) throws -> GatewayCluster {
        let settings = ClusterSettings(
            peers: try peers.map { stub in
                let endpoint = try #require(SocketEndpoint(String(stub.url.dropFirst("http://".count))))
                return ClusterSettings.Peer(address: endpoint, thumbprint: thumbprint)
            })
        return GatewayCluster(
            board: board, store: store, settings: settings, group: MultiThreadedEventLoopGroup.singleton,
            ownThumbprint: { [thumbprint] in thumbprint }, isOurs: { $0 == "app.example.com" })
    }

    private func ask(_ cluster: GatewayCluster, _ token: String, host: String = "app.example.com", isRelayed: Bool = false) async throws
        -> String?
    {
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let answer = try await loop.submit { cluster.answer(token: token, host: host, isRelayed: isRelayed, on: loop) }.get()
        switch answer {
        case .keyAuthorization(let text): return text
        case .wait(let future): return try await future.get()
        case .unknown: return nil
        }
    }

    @Test("what this gateway knows is answered at once, for its own names only")
    func own() async throws {
        let cluster = try cluster([])
        board.set(keyAuthorization: token + ".x", forToken: token)
        #expect(try await ask(cluster, token) == token + ".x")
        #expect(try await ask(cluster, token, isRelayed: true) == token + ".x")
        #expect(try await ask(cluster, token, host: "other.example.com") == nil)
        #expect(cluster.counts.served == 2)
        board.set(keyAuthorization: nil, forToken: token)
        #expect(try await ask(cluster, token) == nil)
    }

    @Test("a process that shares the directory is spoken for, if what it left is a key authorization")
    func shared() async throws {
        let cluster = try cluster([])
        try store.save(keyAuthorization: token + "." + thumbprint, forToken: token)
        #expect(try await ask(cluster, token) == token + "." + thumbprint)
        try store.save(keyAuthorization: "anything", forToken: token)
        #expect(try await ask(cluster, token) == nil)
    }

    @Test("an answer of another gateway is passed on only if it is exactly the token and a listed thumbprint")
    func relayed() async throws {
        let (one, other) = (try await HTTPStub(), try await HTTPStub())
        let cluster = try cluster([one, other])
        let path = "/.well-known/acme-challenge/" + token
        let good = token + "." + thumbprint
        for forged in [
            good + "\n", good + "x", "x" + good, token + "." + String(repeating: "f", count: 43), thumbprint, "", good + "." + good,
        ] {
            one.answers.withLockedValue { $0[path] = .init(body: forged) }
            // Not to meet the memory of the last miss.
            #expect(try await ask(cluster, token) == nil, "\(forged)")
            try await MultiThreadedEventLoopGroup.singleton.any().scheduleTask(in: .milliseconds(1_010)) {}.futureResult.get()
        }
        one.answers.withLockedValue { $0[path] = .init(status: 302, fields: [("Location", other.url + path)]) }
        #expect(try await ask(cluster, token) == nil)
        #expect(cluster.counts.refused == 7)
        let second = "second-token-of-some-length"
        other.answers.withLockedValue { $0["/.well-known/acme-challenge/" + second] = .init(body: second + "." + thumbprint) }
        #expect(try await ask(cluster, second) == second + "." + thumbprint)
        #expect(cluster.counts.relayed == 1)
        let seen = other.seen.withLockedValue { $0 }
        #expect(
            seen.allSatisfy {
                $0.headers.first(name: "Host") == "app.example.com" && $0.headers.contains(name: "kakuremichi-challenge-relay")
            })
        // Neither a question of another gateway, nor one for a foreign name or no token, is passed on.
        let count = seen.count
        #expect(try await ask(cluster, "third-token-of-some-length-", isRelayed: true) == nil)
        #expect(try await ask(cluster, second, host: "other.example.com") == nil)
        #expect(try await ask(cluster, "short") == nil)
        #expect(other.seen.withLockedValue { $0.count } == count)
        for stub in [one, other] { try await stub.close() }
        await cluster.shutdown()
    }

    @Test("a miss is remembered for a second")
    func misses() async throws {
        let stub = try await HTTPStub()
        let cluster = try cluster([stub])
        let start = NIODeadline.now()
        for _ in 0..<20 { #expect(try await ask(cluster, token) == nil) }
        // However slow this machine is: one question a second at most.
        let seconds = Int((NIODeadline.now() - start).nanoseconds / 1_000_000_000)
        #expect(stub.seen.withLockedValue { $0.count } <= min(1 + seconds, 19))
        try await stub.close()
        await cluster.shutdown()
    }
}
