import Inet
import NIOConcurrencyHelpers
import Noise
import WGUserspace

/// The captures of one interface, where the inner packets of one of its loops pass. There is no such object while nothing is captured.
/// Bound to that loop, like the core that holds it; sans-IO.
package final class PacketTaps {
    private var taps: [PacketTap] = []
    /// Peers by ID, so that a packet costs no look-up of names.
    private var peers: [PeerID: Peer] = [:]

    /// What is written of a packet's peer.
    private struct Peer {
        let key: PublicKey?
        let inbound: [UInt8]
        let outbound: [UInt8]

        init(_ key: PublicKey?) {
            self.key = key
            let name = key?.base64 ?? "nobody"
            inbound = Array("in from \(name)".utf8)
            outbound = Array("out to \(name)".utf8)
        }
    }

    package init() {}

    package var isEmpty: Bool { taps.isEmpty }
    package var count: Int { taps.count }

    package func add(_ tap: PacketTap) { taps.append(tap) }
    package func remove(_ tap: PacketTap) { taps.removeAll { $0 === tap } }

    /// A packet that the device has opened, before the stack sees it.
    func recordInbound(_ packet: RawSpan, from id: PeerID, device: borrowing Device, wallTime: WallTime) {
        record(packet, isInbound: true, id: id, device: device, wallTime: wallTime)
    }

    /// A packet of the stack, before the device seals it in place.
    func recordOutbound(_ packet: RawSpan, device: borrowing Device, wallTime: WallTime) {
        let id = IPHeader.routing(of: packet).flatMap { device.peer(owning: $0.destination) }
        record(packet, isInbound: false, id: id, device: device, wallTime: wallTime)
    }

    private func record(_ packet: RawSpan, isInbound: Bool, id: PeerID?, device: borrowing Device, wallTime: WallTime) {
        let peer: Peer
        if let id, let known = peers[id] {
            peer = known
        } else {
            peer = Peer(id.flatMap { device.status(of: $0)?.publicKey })
            if peers.count >= Self.maximumPeers { peers = [:] }
            if let id { peers[id] = peer }
        }
        for tap in taps {
            tap.record(
                packet, isInbound: isInbound, peer: peer.key, comment: isInbound ? peer.inbound : peer.outbound,
                time: wallTime.sinceEpoch)
        }
    }

    /// Names that are kept; they are found anew when there are more.
    package static let maximumPeers = 4096
}

/// One capture: filters packets, writes them as pcapng into a bounded buffer, and counts those for which it has no room. Sans-IO.
///
/// All loops of an interface write into it: the only lock of their path, and there while something is captured only.
///
/// Unchecked: what changes is touched under the lock; `onBytes` is set before there are packets.
package final class PacketTap: @unchecked Sendable {
    private let lock = NIOLock()
    private let options: PacketCapture.Options
    private let bufferLimit: Int
    private var writer = PcapngWriter()
    /// Bytes taken that have not been released yet.
    private var bytesUnderWay = 0
    /// Bytes of the whole stream.
    private var streamBytes = 0
    private var reportedDrops: UInt64 = 0
    private var tally = PacketCapture.Counts()
    private var reason: PacketCapture.End?
    /// Called whenever there is something more to take, on the loop that has written it; must not call back.
    package var onBytes: @Sendable () -> Void = {}

    /// - Parameters:
    ///   - application: what the file says of its writer.
    ///   - bufferLimit: bytes that may wait for the reader.
    package init(_ options: PacketCapture.Options, application: String, interface: String, bufferLimit: Int = PacketCapture.bufferLimit) {
        self.options = options
        self.bufferLimit = bufferLimit
        let filter = options.filters.isEmpty ? nil : options.filters.map(\.description).joined(separator: " and ")
        writer.begin(application: application, interface: interface, filter: filter, snapLength: options.snapLength)
        streamBytes = writer.bytes.count
    }

    package var counts: PacketCapture.Counts { lock.withLock { tally } }
    /// Why it takes no more packets; `nil` while it does.
    package var end: PacketCapture.End? { lock.withLock { reason } }

    package func record(_ packet: RawSpan, isInbound: Bool, peer: PublicKey?, comment: [UInt8], time: UInt64) {
        lock.lock()
        let hasMore = take(packet, isInbound: isInbound, peer: peer, comment: comment, time: time)
        lock.unlock()
        if hasMore { onBytes() }
    }

    /// Under the lock.
    /// - Returns: whether there is more to take.
    private func take(_ packet: RawSpan, isInbound: Bool, peer: PublicKey?, comment: [UInt8], time: UInt64) -> Bool {
        guard reason == nil else { return false }
        tally.seen += 1
        for filter in options.filters where !filter.matches(packet, peer: peer) { return false }
        tally.matched += 1
        let length = PcapngWriter.length(ofPacket: packet.byteCount, comment: comment, snapLength: options.snapLength)
        let hasGap = tally.dropped > reportedDrops
        let needed = length + (hasGap ? PcapngWriter.statisticsLength : 0)
        guard streamBytes + needed + PcapngWriter.statisticsLength <= options.maximumBytes else {
            close(.size, time: time)
            return true
        }
        guard bytesUnderWay + writer.bytes.count + needed <= bufferLimit else {
            tally.dropped += 1
            return false
        }
        // Where packets are missing, the file says so.
        if hasGap { writeStatistics(time: time) }
        writer.packet(packet, at: time, isInbound: isInbound, comment: comment, snapLength: options.snapLength)
        streamBytes += length
        tally.written += 1
        if tally.written >= options.maximumPackets ?? .max { close(.count, time: time) }
        return true
    }

    /// Takes no more packets, and writes the counts behind the last one. The first end counts.
    package func finish(_ end: PacketCapture.End, time: UInt64) {
        let isFirst = lock.withLock { close(end, time: time) }
        if isFirst { onBytes() }
    }

    @discardableResult
    private func close(_ end: PacketCapture.End, time: UInt64) -> Bool {
        guard reason == nil else { return false }
        reason = end
        writeStatistics(time: time)
        return true
    }

    /// The bytes that wait for the reader; they count against the buffer's limit until they are released.
    package func take() -> [UInt8] {
        lock.withLock {
            bytesUnderWay += writer.bytes.count
            return writer.take()
        }
    }

    package var waitingBytes: Int { lock.withLock { writer.bytes.count } }

    /// The reader has `byteCount` of the bytes that were taken.
    package func release(_ byteCount: Int) { lock.withLock { bytesUnderWay -= min(bytesUnderWay, byteCount) } }

    private func writeStatistics(time: UInt64) {
        let begun = writer.bytes.count
        writer.statistics(tally, at: time, end: reason)
        streamBytes += writer.bytes.count - begun
        reportedDrops = tally.dropped
    }
}

extension WallTime {
    /// Nanoseconds since 1970.
    var sinceEpoch: UInt64 { UInt64(clamping: seconds) &* 1_000_000_000 &+ UInt64(nanoseconds) }
}
