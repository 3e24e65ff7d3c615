import Inet
import Logging
import NIOCore
import NIOPosix
import Noise
import Synchronization

/// Remembers where each peer was seen last, so that a restarted gateway can start the handshake itself. Changes are written together,
/// some seconds after the first of them, and once more at the end; one line a peer: `PUBLICKEY IP:PORT`.
package final class EndpointStore: Sendable {
    package static let delay = TimeAmount.seconds(5)

    private struct State {
        var endpoints: [PublicKey: SocketEndpoint] = [:]
        var isDirty = false
        var isScheduled = false
    }

    private let path: String
    private let peers: Set<PublicKey>
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let state: Mutex<State>

    /// Reads what was stored; entries of peers that are no longer configured are dropped, so the file is as large as the configuration.
    package init(path: String, peers: Set<PublicKey>, eventLoop: any EventLoop, logger: Logger) {
        self.path = path
        self.peers = peers
        self.eventLoop = eventLoop
        self.logger = logger
        var endpoints: [PublicKey: SocketEndpoint] = [:]
        if let contents = try? SystemFiles.read(path) {
            for (key, endpoint) in Self.parse(contents.bytes) where peers.contains(key) { endpoints[key] = endpoint }
        }
        state = Mutex(State(endpoints: endpoints))
    }

    package var endpoints: [PublicKey: SocketEndpoint] { state.withLock { $0.endpoints } }

    /// The peer was seen there. From any thread.
    package func record(_ peer: PublicKey, at endpoint: SocketEndpoint) {
        guard peers.contains(peer) else { return }
        let mustSchedule = state.withLock { state in
            guard state.endpoints[peer] != endpoint else { return false }
            state.endpoints[peer] = endpoint
            state.isDirty = true
            defer { state.isScheduled = true }
            return !state.isScheduled
        }
        guard mustSchedule else { return }
        eventLoop.scheduleTask(in: Self.delay) {
            self.state.withLock { $0.isScheduled = false }
            NIOThreadPool.singleton.submit { _ in self.save() }
        }
    }

    /// Writes what has changed since the last time. Blocks: not on an event loop.
    package func save() {
        let changed = state.withLock { state -> [PublicKey: SocketEndpoint]? in
            defer { state.isDirty = false }
            return state.isDirty ? state.endpoints : nil
        }
        guard let changed else { return }
        do {
            try SystemFiles.replace(path, Self.format(changed))
        } catch {
            logger.warning("The peers' endpoints cannot be stored", metadata: ["error": "\(error)"])
        }
    }

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
