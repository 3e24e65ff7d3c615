import Glibc
import Inet
import Logging
import NIOCore
import Noise
import Synchronization

/// Remembers where each peer was seen last, so that a restarted gateway can start the handshake itself. Changes are written together,
/// some seconds after the first of them, and once more at the end; one line a peer: `PUBLICKEY IP:PORT`.
package final class EndpointStore: Sendable {
    package static let delay = TimeAmount.seconds(5)
    /// As many lines as a configuration can have peers.
    static let maximumSize = 16 << 20

    private let file: PeerStateFile
    private let state: Mutex<State>

    private struct State {
        var peers: Set<PublicKey>
        var endpoints: [PublicKey: SocketEndpoint]
    }

    /// Reads what was stored; entries of peers that are no longer configured are dropped, so the file is as large as the configuration.
    package init(path: String, peers: Set<PublicKey>, eventLoop: any EventLoop, logger: Logger) {
        file = PeerStateFile(path: path, failure: "The peers' endpoints cannot be stored", eventLoop: eventLoop, logger: logger)
        var endpoints: [PublicKey: SocketEndpoint] = [:]
        do throws(FileError) {
            let contents = try SystemFiles.read(path, limit: Self.maximumSize, isRegular: true)
            for (key, endpoint) in Self.parse(contents.bytes) where peers.contains(key) { endpoints[key] = endpoint }
        } catch {
            if case .system(_, ENOENT) = error.problem {
            } else {
                logger.warning("The peers' stored endpoints cannot be read; peers are waited for", metadata: ["error": "\(error)"])
            }
        }
        state = Mutex(State(peers: peers, endpoints: endpoints))
    }

    package var endpoints: [PublicKey: SocketEndpoint] { state.withLock { $0.endpoints } }

    /// From now on these are the configured peers; others are forgotten.
    package func track(_ peers: Set<PublicKey>) {
        let hasForgotten = state.withLock { state in
            let count = state.endpoints.count
            state.peers = peers
            state.endpoints = state.endpoints.filter { peers.contains($0.key) }
            return state.endpoints.count < count
        }
        if hasForgotten { file.change(writingIn: Self.delay) { Self.format(self.endpoints) } }
    }

    /// The peer was seen there. From any thread.
    package func record(_ peer: PublicKey, at endpoint: SocketEndpoint) {
        let isNew = state.withLock { state in
            guard state.peers.contains(peer), state.endpoints[peer] != endpoint else { return false }
            state.endpoints[peer] = endpoint
            return true
        }
        if isNew { file.change(writingIn: Self.delay) { Self.format(self.endpoints) } }
    }

    /// Writes what has changed since the last time. Blocks: not on an event loop.
    package func save() { file.save { Self.format(self.endpoints) } }

    package static func format(_ endpoints: [PublicKey: SocketEndpoint]) -> [UInt8] {
        Array(endpoints.map { "\($0) \($1)\n" }.sorted().joined().utf8)
    }

    /// Lines that are not understood are skipped: the file is only a hint.
    package static func parse(_ bytes: [UInt8]) -> [(PublicKey, SocketEndpoint)] {
        String(decoding: bytes, as: UTF8.self).split(separator: "\n").compactMap { line in
            let parts = line.split(separator: " ")
            guard parts.count == 2, let key = PublicKey(base64: String(parts[0])), let endpoint = SocketEndpoint(String(parts[1])) else {
                return nil
            }
            return (key, endpoint)
        }
    }
}
