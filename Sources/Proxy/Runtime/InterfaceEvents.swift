import Inet
import Logging
import NIOCore
import NIOWireGuard
import Noise
import WGUserspace

/// What becomes of the interface's events: log lines, bounded where strangers can cause them, and stored timestamps. Called on the
/// event loop of the peer, of which there may be several.
struct InterfaceEvents: Sendable {
    let timestamps: TimestampStore?
    let logger: Logger
    private let budget = LogBudget()

    init(timestamps: TimestampStore?, logger: Logger) {
        self.timestamps = timestamps
        self.logger = logger
    }

    func receive(_ event: WireGuardInterface.PeerEvent) {
        switch event {
        case .sessionEstablished(let peer): logger.debug("Session established", metadata: ["peer": "\(peer)"])
        case .endpointChanged(let peer, let endpoint):
            log(.endpointChanged, .info, "Peer is reached at", ["peer": "\(peer)", "endpoint": "\(endpoint)"])
        case .handshakeGaveUp(let peer): logger.warning("No answer to the handshake", metadata: ["peer": "\(peer)"])
        case .timestampSent(let timestamp): timestamps?.recordSent(timestamp)
        case .timestampAccepted(let peer, let timestamp):
            if timestamps?.recordAccepted(timestamp, of: peer) == false { warnFarAhead(peer, timestamp) }
        case .timestampFarAhead(let peer, let timestamp): warnFarAhead(peer, timestamp)
        case .timestampRefused(let peer, let difference):
            warn(
                .refusedTimestamp, "A handshake with an old timestamp is refused: a replay, or the peer's clock stepped back",
                ["peer": "\(peer)", "behind": "\(difference.inSeconds) s"])
        case .underLoad(true): warn(.underLoad, "Many handshakes: peers have to prove their address first")
        case .underLoad(false): break
        }
    }

    private func warnFarAhead(_ peer: PublicKey, _ timestamp: TAI64N) {
        warn(
            .timestampFarAhead, "A peer's clock is more than a day ahead of ours; its timestamp is not stored",
            ["peer": "\(peer)", "ahead": "\(timestamp.elapsed(since: TAI64N(SystemEdges.wallTime)).inSeconds) s"])
    }

    private func warn(_ kind: LogBudget.Kind, _ text: Logger.Message, _ fields: Logger.Metadata = [:]) { log(kind, .warning, text, fields) }

    private func log(_ kind: LogBudget.Kind, _ level: Logger.Level, _ text: Logger.Message, _ fields: Logger.Metadata) {
        guard case .write(let omitted) = budget.take(kind, now: .now()) else { return }
        var fields = fields
        if omitted > 0 { fields["omitted"] = "\(omitted)" }
        logger.log(level: level, text, metadata: fields)
    }
}

extension Duration {
    /// In seconds, to the millisecond.
    var inSeconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds / 1_000_000_000_000_000) / 1000
    }
}
