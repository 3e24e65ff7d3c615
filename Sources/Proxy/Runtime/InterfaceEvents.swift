import Inet
import Logging
import NIOCore
import NIOWireGuard
import Noise
import WGUserspace

/// What becomes of the interface's events: log lines, bounded where strangers can cause them, and stored timestamps. Called on the
/// interface's event loop.
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
            logger.info("Peer is reached at", metadata: ["peer": "\(peer)", "endpoint": "\(endpoint)"])
        case .handshakeGaveUp(let peer): logger.warning("No answer to the handshake", metadata: ["peer": "\(peer)"])
        case .timestampSent(let timestamp): timestamps?.recordSent(timestamp)
        case .timestampAccepted(let peer, let timestamp):
            if timestamps?.recordAccepted(timestamp, of: peer) == false { warnFarAhead(peer, timestamp) }
        case .timestampFarAhead(let peer, let timestamp): warnFarAhead(peer, timestamp)
        case .timestampRefused(let peer, let refused, let last):
            warn(
                .refusedTimestamp, "A handshake with an old timestamp is refused: a replay, or the peer's clock stepped back",
                ["peer": "\(peer)", "behind": "\(last.seconds(after: refused)) s"])
        case .underLoad(true): warn(.underLoad, "Many handshakes: peers have to prove their address first")
        case .underLoad(false): break
        }
    }

    private func warnFarAhead(_ peer: PublicKey, _ timestamp: TAI64N) {
        warn(
            .timestampFarAhead, "A peer's clock is more than a day ahead of ours; its timestamp is not stored",
            ["peer": "\(peer)", "ahead": "\(timestamp.seconds(after: TAI64N(SystemEdges.wallTime))) s"])
    }

    private func warn(_ kind: LogBudget.Kind, _ text: Logger.Message, _ fields: Logger.Metadata = [:]) {
        guard case .write(let omitted) = budget.take(kind, now: .now()) else { return }
        var fields = fields
        if omitted > 0 { fields["omitted"] = "\(omitted)" }
        logger.warning(text, metadata: fields)
    }
}

extension TAI64N {
    /// The time from `other` to this one in seconds, to the millisecond; 0 if it is not later.
    func seconds(after other: TAI64N) -> Double {
        guard other < self else { return 0 }
        let (own, before) = (wallTime, other.wallTime)
        let seconds = Double(own.seconds) - Double(before.seconds)
        return ((seconds + (Double(own.nanoseconds) - Double(before.nanoseconds)) / 1e9) * 1000).rounded() / 1000
    }
}

extension PeerStatus {
    /// How many seconds the last refused timestamp was behind the last accepted one.
    var refusedTimestampBehind: Double? {
        guard let last = lastTimestamp, let refused = lastRefusedTimestamp else { return nil }
        return last.seconds(after: refused)
    }
}
