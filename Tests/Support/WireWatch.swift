import Inet
import TCPStack

/// Looks at every packet that two hosts send: nothing above the MTU or the peer's MSS, nothing beyond the peer's window, no right edge
/// that moves left by a whole unit of its scale.
package struct WireWatch {
    /// One direction of a connection.
    private struct Flow: Hashable {
        var host: Int
        var local: UInt16
        var remote: UInt16

        var reverse: Flow { Flow(host: 1 - host, local: remote, remote: local) }
    }

    /// What the sender of a flow has promised.
    private struct Promise {
        var iss: SequenceNumber
        var scale: Int
        var hasScale: Bool
        var mss: Int
        var edge: UInt32?
    }

    private var promises: [Flow: Promise] = [:]
    package private(set) var violation: String?
    /// Resets that were seen, by who sent them.
    private var resets: [Flow: Int] = [:]
    /// The initial sequence number that the client's port uses now, as the last SYN and the last SYN and ACK say.
    private(set) var offeredISS: [UInt16: UInt32] = [:]
    private(set) var acceptedISS: [UInt16: UInt32] = [:]

    package init() {}

    /// A host has lost its memory: what it promised is void.
    package mutating func forget(host: Int) {
        promises = promises.filter { $0.key.host != host }
    }

    package mutating func look(_ packet: RawSpan, from host: Int, mtu: Int) {
        if packet.byteCount > mtu { note("a packet of \(packet.byteCount) bytes on an MTU of \(mtu)") }
        guard let ip = try? IPHeader(parsing: packet), ip.upperProtocol == .tcp else { return }
        let segment = packet.extracting(ip.payload)
        guard let header = TCPHeader(parsing: segment) else { return note("a segment that does not parse") }
        let flow = Flow(host: host, local: header.sourcePort, remote: header.destinationPort)
        if header.flags.contains(.rst) {
            resets[flow, default: 0] += 1
            return
        }
        if header.flags.contains(.syn) {
            if header.flags.contains(.ack) {
                acceptedISS[header.destinationPort] = header.acknowledgment.rawValue &- 1
            } else {
                offeredISS[header.sourcePort] = header.sequence.rawValue
            }
            let options = TCPOptions(parsing: segment.extracting(TCPHeader.minimumLength..<header.headerLength))
            if promises[flow]?.iss != header.sequence {
                promises[flow] = Promise(
                    iss: header.sequence, scale: Int(options.windowScale ?? 0), hasScale: options.windowScale != nil,
                    mss: Int(options.maximumSegmentSize ?? 536), edge: nil)
                // The ports are used anew.
                if !header.flags.contains(.ack) { promises[flow.reverse] = nil }
            }
        }
        let theirs = promises[flow.reverse]
        if header.flags.contains(.ack), var promise = promises[flow] {
            let isScaled = !header.flags.contains(.syn) && promise.hasScale && theirs?.hasScale != false
            let shift = isScaled ? promise.scale : 0
            let edge = header.acknowledgment.rawValue &+ UInt32(header.window) << UInt32(shift)
            let gain = promise.edge.map { Int32(bitPattern: edge &- $0) } ?? 1
            // The window in a SYN is not scaled: one that is sent again says less than an ACK in between (RFC 7323 §2.2).
            if gain <= -Int32(1 << shift), !header.flags.contains(.syn) {
                note("the right edge moved left by \(-gain), unit \(1 << shift)", header)
            }
            if gain > 0 {
                promise.edge = edge
                promises[flow] = promise
            }
        }
        guard let theirs else { return }
        let text = segment.byteCount - header.headerLength
        if text > 0, segment.byteCount - TCPHeader.minimumLength > theirs.mss {
            note("\(segment.byteCount - TCPHeader.minimumLength) bytes on an MSS of \(theirs.mss)", header)
        }
        if text > 0, let edge = theirs.edge {
            let beyond = Int32(bitPattern: header.sequence.rawValue &+ UInt32(text) &- edge)
            if beyond > 0 { note("\(beyond) bytes beyond the window", header) }
        }
    }

    /// Resets that a host has sent on a connection.
    func resets(from host: Int, local: UInt16, remote: UInt16) -> Int { resets[Flow(host: host, local: local, remote: remote)] ?? 0 }

    private mutating func note(_ text: String, _ header: TCPHeader? = nil) {
        guard violation == nil else { return }
        violation = header.map { "\(text): \($0.sourcePort) to \($0.destinationPort), flags \($0.flags.rawValue)" } ?? text
    }
}
