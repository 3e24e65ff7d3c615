import Inet
import Noise

/// Several loops on one port: what is for a peer of another one, and which addresses are.
///
/// ```
///   type 1 ──► the loop that it comes to: mac1, load, mac2, rate, key agreement ──► static key ──► the peer's loop: the rest
///   type 2, 3, 4 ──► the loop that drew the index (``ReceiveResult/misdirected(to:)`` elsewhere)
/// ```
/// Load and cookies are judged once, where an initiation comes in; the peer's loop goes on where that one has stopped.
extension Device {
    /// The next initiation for a peer of another loop, to be given to that loop's ``receive(_:)``. Ask after each
    /// ``handleQueuedHandshake(now:wallTime:)``.
    public mutating func pollHandOver() -> HandOver? { handOvers.popFirst() }

    /// Takes an initiation that another loop has read as far as its static key. Like others it waits for
    /// ``handleQueuedHandshake(now:wallTime:)``.
    ///
    /// - Returns: `.queued` or `.dropped`.
    @discardableResult
    public mutating func receive(_ handed: HandedInitiation) -> ReceiveResult {
        guard placeByKey[handed.remoteStatic] != nil else {
            drops.count(.unknownPeer)
            return .dropped(.unknownPeer)
        }
        guard handedInitiations.count < Constants.maximumHandedInitiations else {
            drops.count(.handshakeQueueFull)
            return .dropped(.handshakeQueueFull)
        }
        handedInitiations.append(handed)
        return .queued
    }

    /// The other loop had no room for a message.
    ///
    /// - Parameter isInitiation: then it is load, and initiations have to show a cookie.
    public mutating func handOverFailed(isInitiation: Bool, now: Instant) {
        drops.count(.handOverFull)
        guard isInitiation else { return }
        load.noteRefusal(now: now)
        noteLoad(now: now)
    }

    /// Says whose `prefixes` are that have changed hands between loops: a peer of this device that has one and should not loses it.
    /// What falls to this loop is set with its peer, before.
    ///
    /// Without it a peer could speak for a more specific prefix of a peer of another loop.
    public mutating func place(_ prefixes: [AllowedIPsPlacement]) {
        for placement in prefixes {
            guard placement.loop != configuration.share.index else { continue }
            if placement.loop == nil {
                routes.remove(placement.prefix, peer: AllowedIPs.elsewhere)
            } else if let former = routes.insert(placement.prefix, peer: AllowedIPs.elsewhere), former != AllowedIPs.elsewhere {
                peers[former].allowedIPs.removeAll { $0 == placement.prefix }
            }
        }
    }

    /// Whether an inner address belongs to a peer of another loop.
    public func isElsewhere(_ address: IPAddress) -> Bool { routes.lookup(address) == AllowedIPs.elsewhere }

    // MARK: - Inside

    mutating func handOver(
        _ handshake: consuming ResponderHandshake, from source: SocketEndpoint, to local: IPAddress?, loop: Int
    ) -> ReceiveResult {
        guard handOvers.count < Constants.maximumHandedInitiations else { return .dropped(.handOverFull) }
        counters.initiationsHandedOver &+= 1
        handOvers.append(HandOver(loop: loop, initiation: HandedInitiation(handshake, from: source, to: local)))
        return .misdirected(to: loop)
    }

    mutating func accept(_ handed: HandedInitiation, now: Instant, wallTime: WallTime) -> ReceiveResult {
        let result: ReceiveResult
        if hasPrivateKey, let handshake = handed.take() {
            result = accept(handshake, from: handed.source, to: handed.local, now: now, wallTime: wallTime)
        } else {
            result = .dropped(.noPrivateKey)
        }
        if case .dropped(let reason) = result { drops.count(reason) }
        return result
    }
}

/// A prefix and the loop that has it now; `nil`: nobody has it.
public struct AllowedIPsPlacement: Hashable, Sendable {
    public var prefix: IPPrefix
    public var loop: Int?

    public init(_ prefix: IPPrefix, loop: Int?) {
        self.prefix = prefix
        self.loop = loop
    }
}

/// An initiation on its way to the loop of its peer.
public struct HandOver: Sendable {
    public let loop: Int
    public let initiation: HandedInitiation
}

/// An initiation that has been read as far as the static key of its sender, and where it came from.
///
/// Unchecked: one loop makes it and lets go of it when it gives it away; only the other one touches it then.
public final class HandedInitiation: @unchecked Sendable {
    let source: SocketEndpoint
    let local: IPAddress?
    let remoteStatic: PublicKey
    private var handshake: ResponderHandshake?

    init(_ handshake: consuming ResponderHandshake, from source: SocketEndpoint, to local: IPAddress?) {
        self.source = source
        self.local = local
        remoteStatic = handshake.remoteStatic
        self.handshake = consume handshake
    }

    func take() -> ResponderHandshake? { handshake.take() }
}
