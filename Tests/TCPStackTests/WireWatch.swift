import Inet
import TCPStack
import TestSupport

/// Looks at every packet that two stacks exchange: nothing above the MTU, nothing beyond the peer's window,
/// no right edge that moves left by a whole unit of its scale.
struct WireWatch {
    private struct Flow: Hashable {
        var source: UInt16
        var destination: UInt16
    }

    private struct Side {
        var scale = 0
        var edge: UInt32?
        var hasScale = false
    }

    private var sides: [Flow: Side] = [:]
    private(set) var violation: String?

    mutating func look(_ packet: [UInt8], mtu: Int) {
        guard let segment = TCPScript.parse(packet), !segment.flags.contains(.rst) else { return }
        if packet.count > mtu { violation = "a packet of \(packet.count) bytes" }
        let flow = Flow(source: segment.sourcePort, destination: segment.destinationPort)
        let reverse = Flow(source: segment.destinationPort, destination: segment.sourcePort)
        if segment.flags.contains(.syn) {
            sides[flow] = Side(scale: Int(segment.windowScale ?? 0), edge: nil, hasScale: segment.windowScale != nil)
        }
        if segment.flags.contains(.ack), var side = sides[flow] {
            let shift = segment.flags.contains(.syn) || sides[reverse]?.hasScale == false ? 0 : side.scale
            let edge = segment.ack &+ UInt32(segment.window) << UInt32(shift)
            if let old = side.edge, Int32(bitPattern: edge &- old) <= -Int32(1 << shift) {
                violation = "the right edge moved left by \(old &- edge): \(segment)"
            }
            if side.edge.map({ Int32(bitPattern: edge &- $0) > 0 }) ?? true { side.edge = edge }
            sides[flow] = side
        }
        if !segment.text.isEmpty, let edge = sides[reverse]?.edge {
            let end = segment.seq &+ UInt32(segment.text.count)
            if Int32(bitPattern: end &- edge) > 0 { violation = "\(end &- edge) bytes beyond the window: \(segment)" }
        }
    }
}
