import AsyncHTTPClient
import FoundationEssentials
import Inet
import NIOCore
import NIOPosix
import Synchronization

/// The other gateways of the same names, as their operator has written them down.
package struct ClusterSettings: Sendable, Equatable {
    package struct Peer: Sendable, Equatable {
        /// Where its plain HTTP listener is.
        package var address: SocketEndpoint
        /// Of its ACME account, RFC 7638: `kakuremichi certs account` prints it there.
        package var thumbprint: String

        package init(address: SocketEndpoint, thumbprint: String) {
            self.address = address
            self.thumbprint = thumbprint
        }
    }

    package var peers: [Peer]

    package init(peers: [Peer] = []) { self.peers = peers }
}

/// Answers HTTP-01: from this process, from another one that shares its certificate cache, or from the other gateways.
///
/// A CA validates from several places, and DNS gives each of them any of the gateways; so each has to know every token. A key
/// authorization is no secret, but whoever could make one up could get a certificate for the name: an answer of another gateway is served
/// only if it is exactly the token and a thumbprint that the operator listed. No control server has a part in this.
///
/// What it does not do: carry keys or certificates; those never leave their gateway.
package final class GatewayCluster: ChallengeResponder {
    private let board: ChallengeBoard
    private let store: CertificateStore
    /// Each with its questions that it has not answered yet.
    private let peers: [(peer: ClusterSettings.Peer, questions: Turns)]
    private let thumbprints: Set<String>
    private let isOurs: @Sendable (String) -> Bool
    private let http: HTTPClient?
    private let loop: any EventLoop
    private let ownThumbprint: @Sendable () async -> String
    private let state = Mutex(State())

    private struct State: Sendable {
        /// Who waits for the answer about a token.
        var waiting: [String: [EventLoopPromise<String?>]] = [:]
        /// Tokens that no gateway knew, until when.
        var misses: [String: NIODeadline] = [:]
        var served: UInt64 = 0
        var relayed: UInt64 = 0
        var refused: UInt64 = 0
    }

    /// - Parameters:
    ///   - ownThumbprint: of this gateway's account, which may change.
    ///   - isOurs: whether a host, normalised, has a tunnel here.
    package init(
        board: ChallengeBoard, store: CertificateStore, settings: ClusterSettings, group: any EventLoopGroup,
        ownThumbprint: @escaping @Sendable () async -> String, isOurs: @escaping @Sendable (String) -> Bool
    ) {
        loop = group.next()
        self.ownThumbprint = ownThumbprint
        self.board = board
        self.store = store
        self.isOurs = isOurs
        peers = settings.peers.map { [loop] in ($0, Turns(Self.maximumOutstanding, patience: Self.patience, on: loop)) }
        thumbprints = Set(settings.peers.map(\.thumbprint))
        guard !settings.peers.isEmpty else {
            http = nil
            return
        }
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow, timeout: .init(connect: .seconds(2), read: .seconds(3)))
        configuration.connectionPool.idleTimeout = .seconds(5)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 32
        configuration.connectionPool.retryConnectionEstablishment = false
        http = HTTPClient(eventLoopGroupProvider: .shared(group), configuration: configuration)
    }

    /// For listeners at which routes are served: what is not known here at once goes on to the web service.
    package var local: any ChallengeResponder { Local(cluster: self) }

    private struct Local: ChallengeResponder {
        let cluster: GatewayCluster

        func answer(token: String, host: String, isRelayed: Bool, on loop: any EventLoop) -> ChallengeAnswer {
            guard cluster.isOurs(host), let known = cluster.board.keyAuthorization(forToken: token) else { return .unknown }
            cluster.state.withLock { $0.served &+= 1 }
            return .keyAuthorization(known)
        }
    }

    package func shutdown() async { try? await http?.shutdown() }

    /// Answers given from here, answers of other gateways passed on, and those that were no key authorization of theirs.
    package var counts: (served: UInt64, relayed: UInt64, refused: UInt64) { state.withLock { ($0.served, $0.relayed, $0.refused) } }

    package func answer(token: String, host: String, isRelayed: Bool, on loop: any EventLoop) -> ChallengeAnswer {
        guard CertificateStore.isToken(token), isOurs(host) else { return .unknown }
        if let known = board.keyAuthorization(forToken: token) {
            state.withLock { $0.served &+= 1 }
            return .keyAuthorization(known)
        }
        // A question of another gateway is answered from here alone, and says nothing of what the others know.
        let key = isRelayed ? "relayed " + token : token
        let promise = loop.makePromise(of: String?.self)
        let isFirst: Bool? = state.withLock { state in
            if let until = state.misses[token], NIODeadline.now() < until { return nil }
            if state.waiting[key] != nil {
                guard state.waiting[key]?.count ?? 0 < Self.maximumWaiting else { return nil }
                state.waiting[key]?.append(promise)
                return false
            }
            guard state.waiting.count < Self.maximumQuestions else { return nil }
            state.waiting[key] = [promise]
            return true
        }
        guard let isFirst else {
            promise.succeed(nil)
            return .unknown
        }
        if isFirst {
            Task {
                let found = await find(token, host: host, asksPeers: !isRelayed)
                let waiting = state.withLock { $0.waiting.removeValue(forKey: key) ?? [] }
                for promise in waiting { promise.succeed(found) }
            }
        }
        return .wait(promise.futureResult)
    }

    private func find(_ token: String, host: String, asksPeers: Bool) async -> String? {
        let stored = try? await NIOThreadPool.singleton.runIfActive { [store] in try store.keyAuthorization(forToken: token) }
        // Others may write into the directory: what is taken from it has to be of this account, or of one that is listed.
        if let stored = stored ?? nil {
            let own = await ownThumbprint()
            if ([own] + thumbprints).contains(where: { Self.isKeyAuthorization(stored, of: token, thumbprint: $0) }) { return stored }
        }
        guard asksPeers else { return nil }
        let (answer, wereAllAsked) = await askPeers(token, host: host)
        if let answer {
            state.withLock { $0.relayed &+= 1 }
            return answer
        }
        guard wereAllAsked else { return nil }
        state.withLock { state in
            let now = NIODeadline.now()
            if state.misses.count >= Self.maximumMisses { state.misses = state.misses.filter { $0.value > now } }
            if state.misses.count < Self.maximumMisses { state.misses[token] = now + Self.missTime }
        }
        return nil
    }

    /// All at once; the first good answer counts. A peer with many questions gets this one when it has answered some. If it answers none it
    /// is left out after a while: those about tokens that others have are not held up by it.
    private func askPeers(_ token: String, host: String) async -> (answer: String?, wereAllAsked: Bool) {
        guard let http else { return (nil, true) }
        return await withTaskGroup(of: Optional<String?>.self) { tasks in
            for (peer, questions) in peers {
                tasks.addTask { await questions.run { await self.ask(peer, token, host: host, http) } }
            }
            var wereAllAsked = true
            for await answer in tasks {
                guard let answer else {
                    wereAllAsked = false
                    continue
                }
                guard let answer else { continue }
                tasks.cancelAll()
                return (answer, true)
            }
            return (nil, wereAllAsked)
        }
    }

    private func ask(_ peer: ClusterSettings.Peer, _ token: String, host: String, _ http: HTTPClient) async -> String? {
        var request = HTTPClientRequest(url: "http://\(peer.address)/.well-known/acme-challenge/\(token)")
        request.headers.add(name: "Host", value: host)
        request.headers.add(name: "\(CheckedRequest.relayField)", value: "1")
        let finished = request
        let answer = try? await TimeLimit.run(Self.questionLimit, on: loop) { () -> String? in
            let response = try await http.execute(finished, timeout: Self.questionLimit)
            guard response.status == .ok else { return nil }
            return String(decoding: try await response.body.collect(upTo: Self.maximumAnswer).readableBytesView, as: UTF8.self)
        }
        guard let text = answer ?? nil else { return nil }
        guard thumbprints.contains(where: { Self.isKeyAuthorization(text, of: token, thumbprint: $0) }) else {
            state.withLock { $0.refused &+= 1 }
            return nil
        }
        return text
    }

    /// Exactly `TOKEN.THUMBPRINT`, byte by byte, RFC 8555 §8.1.
    static func isKeyAuthorization(_ text: String, of token: String, thumbprint: String) -> Bool {
        text.utf8.elementsEqual((token + "." + thumbprint).utf8)
    }

    /// SHA-256 in base64url.
    package static let thumbprintLength = 43
    /// About different tokens.
    static let maximumQuestions = 512
    /// Requests for one of them.
    static let maximumWaiting = 64
    /// Of one peer.
    static let maximumOutstanding = 128
    /// For a peer with so many.
    static let patience = TimeAmount.seconds(1)
    static let maximumMisses = 1_024
    static let missTime = TimeAmount.seconds(1)
    static let questionLimit = TimeAmount.seconds(4)
    static let maximumAnswer = 256
}
