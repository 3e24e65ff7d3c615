import CSocketShim
import Inet
import NIOCore

/// What came with a datagram.
package struct Arrival: Equatable, Sendable {
    package var source: SocketEndpoint
    /// The address of ours that it was sent to; `nil` if the kernel did not say.
    package var local: IPAddress?
    /// The two ECN bits of its outer header (RFC 3168 §5).
    package var ecn: UInt8

    package init(from source: SocketEndpoint, to local: IPAddress? = nil, ecn: UInt8 = 0) {
        self.source = source
        self.local = local
        self.ecn = ecn
    }
}

extension UDPSockets {
    /// Reads a batch: the first read is NIO's, the others go to the scratch block. Decrypted in place.
    final class ReadHandler: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>

        private let sockets: UDPSockets
        private let descriptor: CInt
        private var arrivals = [csocket_arrival](repeating: csocket_arrival(), count: UDPSockets.readsPerCall)

        init(sockets: UDPSockets, descriptor: CInt) {
            self.sockets = sockets
            self.descriptor = descriptor
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let envelope = unwrapInboundIn(data)
            var left = UDPSockets.maximumBatchBytes
            if let arrival = Arrival(envelope) {
                // NIO's pool shares this memory with the envelope alone, and gives it to the next read when the envelope is gone:
                // nobody sees that it changes. Writing through the buffer would copy it first.
                left -= envelope.data.withUnsafeReadableBytes {
                    deliver(UnsafeMutableRawBufferPointer(mutating: $0), segmentSize: envelope.metadata?.segmentSize ?? 0, arrival)
                }
            }
            // A closed channel's descriptor may name another file by now.
            while left > 0, context.channel.isActive {
                let count = arrivals.withUnsafeMutableBufferPointer {
                    csocket_receive(
                        descriptor, sockets.scratch.baseAddress, UDPSockets.readSize, CInt(UDPSockets.readsPerCall), $0.baseAddress)
                }
                guard count > 0 else { break }
                for index in 0..<Int(count) {
                    guard let arrival = Arrival(arrivals[index]) else { continue }
                    let start = index * UDPSockets.readSize
                    let length = min(Int(arrivals[index].length), UDPSockets.readSize)
                    let block = UnsafeMutableRawBufferPointer(rebasing: sockets.scratch[start..<start + length])
                    left -= deliver(block, segmentSize: Int(arrivals[index].segment_size), arrival)
                }
                guard count == UDPSockets.readsPerCall else { break }
            }
        }

        /// - Returns: what it cost, in bytes.
        private func deliver(_ block: UnsafeMutableRawBufferPointer, segmentSize: Int, _ arrival: Arrival) -> Int {
            let size = segmentSize > 0 ? segmentSize : block.count
            sockets.counters.readCalls += 1
            var offset = 0
            while offset < block.count, let handlers = sockets.handlers {
                let end = offset + min(size, block.count - offset)
                sockets.counters.datagramsReceived += 1
                var span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: block[offset..<end]))
                handlers.receive(&span, arrival)
                offset = end
            }
            return max(block.count, UDPSockets.costOfRead)
        }

        func channelReadComplete(context: ChannelHandlerContext) { sockets.handlers?.batchEnded() }

        /// An ICMP error for an earlier datagram shows up here; the protocols above retry.
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            sockets.counters.receiveErrors += 1
            sockets.logger.debug("UDP read error", metadata: ["error": "\(error)"])
        }
    }

    /// The largest UDP_GRO super-datagram.
    static let readSize = 65_536
    /// Reads of one `recvmmsg`.
    static let readsPerCall = 4
    /// What is read before the turn: as much as eight super-datagrams, or 128 single ones.
    fileprivate static let maximumBatchBytes = 512 * 1024
    fileprivate static let costOfRead = 4096
}

extension Arrival {
    fileprivate init?(_ envelope: AddressedEnvelope<ByteBuffer>) {
        guard envelope.data.readableBytes > 0, let source = SocketEndpoint(envelope.remoteAddress) else { return nil }
        let ecn: UInt8 =
            switch envelope.metadata?.ecnState {
            case .transportNotCapable, nil: 0
            case .transportCapableFlag1: 1
            case .transportCapableFlag0: 2
            case .congestionExperienced: 3
            }
        let local = (envelope.metadata?.packetInfo?.destinationAddress).flatMap { SocketEndpoint($0)?.address }
        self.init(from: source, to: local, ecn: ecn)
    }

    fileprivate init?(_ form: csocket_arrival) {
        guard form.length > 0, let source = IPAddress(form.source) else { return nil }
        self.init(from: SocketEndpoint(source, port: form.source.port), to: IPAddress(form.local), ecn: form.ecn)
    }
}

extension IPAddress {
    /// The address as the socket shim gives it; `nil` if there is none.
    init?(_ form: csocket_endpoint) {
        guard let family = Family(rawValue: form.family) else { return nil }
        self = withUnsafeBytes(of: form.address) { IPAddress(family, in: RawSpan(_unsafeBytes: $0), at: 0) }.unmapped
    }
}
