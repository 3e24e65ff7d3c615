import Inet
import NIOWireGuard
import Testing
import WGUserspace

@Suite struct DatagramBatchTests {
    private static let endpoint = SocketEndpoint(IPAddress(v4: 192, 0, 2, 1), port: 51820)

    private func transmit(
        _ range: Range<Int>, to endpoint: SocketEndpoint = endpoint, from source: IPAddress? = nil, isHandshake: Bool = false,
        ecn: ECN = .notECT
    ) -> Transmit { Transmit(range: range, endpoint: endpoint, source: source, peer: nil, isHandshake: isHandshake, ecn: ecn) }

    @Test("a batch has at most 64 datagrams and 65,000 bytes, as UDP_SEGMENT has", arguments: [100, 1452, 8900, 65_000])
    func bounds(size: Int) {
        var batch = DatagramBatch(transmit(0..<size))
        var count = 1
        while !batch.isFull, batch.take(transmit(count * size..<(count + 1) * size)) { count += 1 }
        #expect(count == min(64, 65_000 / size))
        #expect(batch.count == count && batch.range == 0..<count * size)
    }

    @Test("a shorter datagram ends a batch, a longer one begins the next")
    func sizes() {
        var batch = DatagramBatch(transmit(0..<500))
        let (longer, shorter) = (batch.take(transmit(500..<1001)), batch.take(transmit(500..<900)))
        #expect(!longer && shorter && batch.isFull && batch.range == 0..<900)
    }

    @Test("another destination, source, congestion mark or place, or a handshake message, begins the next")
    func differences() {
        let other = SocketEndpoint(IPAddress(v4: 192, 0, 2, 2), port: 51820)
        for next in [
            transmit(100..<200, to: other), transmit(100..<200, from: other.address), transmit(100..<200, isHandshake: true),
            transmit(100..<200, ecn: .ce), transmit(101..<201),
        ] {
            var batch = DatagramBatch(transmit(0..<100))
            let isTaken = batch.take(next)
            #expect(!isTaken && batch.range == 0..<100)
        }
    }

    @Test("handshake messages are AF41 and leave alone; data has the inner packet's congestion mark only")
    func trafficClass() {
        let handshake = DatagramBatch(transmit(0..<148, isHandshake: true))
        #expect(handshake.departure.trafficClass == 0x88 && handshake.isFull)
        #expect(DatagramBatch(transmit(0..<148, ecn: .ce)).departure.trafficClass == ECN.ce.rawValue)
        let source = IPAddress(v4: 192, 0, 2, 7)
        let departure = DatagramBatch(transmit(0..<148, from: source)).departure
        #expect(departure.source == source && departure.endpoint == Self.endpoint && departure.segmentSize == 148)
    }
}
