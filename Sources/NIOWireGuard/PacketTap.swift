import Inet
import Noise
import WGUserspace

/// The captures of one interface, where its inner packets pass. There is no such object while nothing is captured.
/// Bound to the interface's loop, like the core that holds it; sans-IO.
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
package final class PacketTap {
    private let options: PacketCapture.Options
    private let bufferLimit: Int
    private var writer = PcapngWriter()
    /// Bytes taken that have not been released yet.
    private var bytesUnderWay = 0
    /// Bytes of the whole stream.
    private var streamBytes = 0
    private var reportedDrops: UInt64 = 0
    package private(set) var counts = PacketCapture.Counts()
    /// Why it takes no more packets; `nil` while it does.
    package private(set) var end: PacketCapture.End?
    /// Called whenever there is something more to take; must not call back.
    package var onBytes: () -> Void = {}

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

    package func record(_ packet: RawSpan, isInbound: Bool, peer: PublicKey?, comment: [UInt8], time: UInt64) {
        guard end == nil else { return }
        counts.seen += 1
        for filter in options.filters where !filter.matches(packet, peer: peer) { return }
        counts.matched += 1
        let length = PcapngWriter.length(ofPacket: packet.byteCount, comment: comment, snapLength: options.snapLength)
        let hasGap = counts.dropped > reportedDrops
        let needed = length + (hasGap ? PcapngWriter.statisticsLength : 0)
        guard streamBytes + needed + PcapngWriter.statisticsLength <= options.maximumBytes else { return finish(.size, time: time) }
        guard bytesUnderWay + writer.bytes.count + needed <= bufferLimit else {
            counts.dropped += 1
            return
        }
        // Where packets are missing, the file says so.
        if hasGap { writeStatistics(time: time) }
        writer.packet(packet, at: time, isInbound: isInbound, comment: comment, snapLength: options.snapLength)
        streamBytes += length
        counts.written += 1
        if counts.written >= options.maximumPackets ?? .max { finish(.count, time: time) }
        onBytes()
    }

    /// Takes no more packets, and writes the counts behind the last one. The first end counts.
    package func finish(_ end: PacketCapture.End, time: UInt64) {
        guard self.end == nil else { return }
        self.end = end
        writeStatistics(time: time)
        onBytes()
    }

    /// The bytes that wait for the reader; they count against the buffer's limit until they are released.
    package func take() -> [UInt8] {
        bytesUnderWay += writer.bytes.count
        return writer.take()
    }

    package var waitingBytes: Int { writer.bytes.count }

    /// The reader has `byteCount` of the bytes that were taken.
    package func release(_ byteCount: Int) { bytesUnderWay -= min(bytesUnderWay, byteCount) }

    private func writeStatistics(time: UInt64) {
        let begun = writer.bytes.count
        writer.statistics(counts, at: time, end: end)
        streamBytes += writer.bytes.count - begun
        reportedDrops = counts.dropped
    }
}

extension WallTime {
    /// Nanoseconds since 1970.
    var sinceEpoch: UInt64 { UInt64(clamping: seconds) &* 1_000_000_000 &+ UInt64(nanoseconds) }
}
