import Inet
import Noise
import TCPStack
import WGUserspace

/// One WireGuard device joined with one TCP/IP stack. Sans-IO: bytes, time and randomness come in, datagrams go out.
///
/// ```
///   receive ──► Device (open, cryptokey routing) ──► Stack ──► pollStackEvent
///   pollTransmit ◄── Device (seal) ◄── Stack.pollTransmit
/// ```
/// It does not own sockets or timers; `InterfaceLoop` drives it on real ones, `TwoNodes` in virtual time.
public struct InterfaceCore: ~Copyable {
    public var device: Device
    public var stack: Stack
    /// What captures inner packets; `nil` while nothing does, which is all that a packet then looks at.
    package var taps: PacketTaps?

    public init(device: consuming Device, stack: consuming Stack) {
        self.device = device
        self.stack = stack
    }

    /// Takes in one datagram that came from `source` to `local`; it is decrypted in place. A handshake message waits for
    /// `device.handleQueuedHandshake`.
    /// - Returns: the loop of the interface that the datagram is for, if it is another one: it is as it was then.
    @discardableResult
    public mutating func receive(
        _ datagram: inout MutableRawSpan, from source: SocketEndpoint, to local: IPAddress? = nil, ecn: ECN = .notECT, now: Instant,
        wallTime: WallTime
    ) -> Int? {
        switch device.receive(&datagram, from: source, to: local, ecn: ecn, now: now, wallTime: wallTime) {
        case .packet(let range, from: let peer):
            if let taps { taps.recordInbound(datagram.bytes.extracting(range), from: peer, device: device, wallTime: wallTime) }
            stack.receive(datagram.bytes.extracting(range), now: now)
        case .queued, .handled, .dropped: break
        case .misdirected(let loop): return loop
        }
        return nil
    }

    /// Writes the next datagram to send at `offset`, or answers `nil` when there is nothing left to send now.
    /// - Parameter buffer: must have `maximumDatagramRoom` bytes behind `offset`.
    public mutating func pollTransmit(
        into buffer: inout MutableRawSpan, at offset: Int, now: Instant, wallTime: WallTime
    ) -> Transmit? {
        while true {
            if let transmit = device.pollTransmit(into: &buffer, at: offset, now: now, wallTime: wallTime) { return transmit }
            guard let packet = stack.pollTransmit(into: &buffer, at: offset + Self.headroom, now: now) else { return nil }
            if let taps { taps.recordOutbound(buffer.bytes.extracting(packet), device: device, wallTime: wallTime) }
            switch device.send(packet, in: &buffer, now: now) {
            case .datagram(let transmit): return transmit
            // A staged packet asks for a handshake, which the device gives on the next round. It measures no round trip.
            case .staged:
                stack.packetWasHeldBack()
                continue
            case .dropped: continue
            }
        }
    }

    /// When `handleTimeout` wants to be called next; `nil` if nothing is pending.
    public var nextDeadline: Instant? {
        switch (device.nextDeadline, stack.nextDeadline) {
        case (let first?, let second?): min(first, second)
        case (let first, let second): first ?? second
        }
    }

    public mutating func handleTimeout(now: Instant) {
        device.handleTimeout(now: now)
        stack.handleTimeout(now: now)
    }

    /// Bytes before an inner packet that WireGuard's data header takes (WG §5.4.6).
    public static let headroom = 16
    /// Room that `pollTransmit` needs: the largest inner packet, its padding, header and tag.
    public static let maximumDatagramRoom = 65_535 + 64
}
