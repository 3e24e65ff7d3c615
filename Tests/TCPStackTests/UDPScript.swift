import Inet
import TCPStack
import TestSupport

/// Datagrams of a `TCPScript`'s peer.
extension TCPScript {
    var peer: SocketEndpoint { SocketEndpoint(remote, port: remotePort) }

    /// An IP packet with one datagram.
    static func datagram(from source: SocketEndpoint, to destination: SocketEndpoint, _ data: [UInt8]) -> [UInt8] {
        let start = SegmentWriter.ipHeaderLength(source.address.family) + UDPHeader.size
        var buffer = [UInt8](repeating: 0, count: start) + data
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        _ = UDPHeader.finish(into: &bytes, at: 0, source: source, destination: destination, payloadLength: data.count)
        return buffer
    }

    /// The peer, or somebody else, sends a datagram to `port`.
    func sendDatagram(_ data: [UInt8], to port: UInt16, from source: SocketEndpoint? = nil) {
        inject(Self.datagram(from: source ?? peer, to: SocketEndpoint(local, port: port), data))
    }

    /// Everything that waits at the socket.
    func receiveAll(_ id: UDPSocketID) -> [[UInt8]] {
        var result: [[UInt8]] = []
        while let (_, data) = receiveDatagram(id) { result.append(data) }
        return result
    }

    func receiveDatagram(_ id: UDPSocketID, room: Int = 65_535) -> (UDPDatagram, [UInt8])? {
        var buffer = [UInt8](repeating: 0, count: room)
        var datagram: UDPDatagram?
        do {
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            datagram = (try? stack.receiveUDP(id, into: &bytes)) ?? nil
        }
        return datagram.map { ($0, Array(buffer[..<$0.count])) }
    }

    @discardableResult
    func sendFrom(_ id: UDPSocketID, _ data: [UInt8], to remote: SocketEndpoint? = nil, from source: IPAddress? = nil) throws -> Bool {
        try stack.sendUDP(id, data.span.bytes, to: remote, from: source, now: now)
    }

    /// The next packet, read as a datagram with a right checksum.
    func nextDatagram() -> (source: SocketEndpoint, destination: SocketEndpoint, data: [UInt8])? {
        nextPacket().flatMap(Self.parseDatagram)
    }

    static func parseDatagram(_ packet: [UInt8]) -> (source: SocketEndpoint, destination: SocketEndpoint, data: [UInt8])? {
        let bytes = packet.span.bytes
        guard let ip = try? IPHeader(parsing: bytes), ip.upperProtocol == .udp else { return nil }
        let payload = bytes.extracting(ip.payload)
        guard let header = UDPHeader(parsing: payload), header.checksum != 0, header.length == payload.byteCount,
            header.hasRightChecksum(payload, source: ip.source, destination: ip.destination)
        else { return nil }
        return (
            SocketEndpoint(ip.source, port: header.sourcePort), SocketEndpoint(ip.destination, port: header.destinationPort),
            Array(packet[(ip.headerLength + UDPHeader.size)..<ip.totalLength])
        )
    }
}
