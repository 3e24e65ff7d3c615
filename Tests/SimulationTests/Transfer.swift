import Inet
import TCPStack

/// An application on one end of a connection: sends `total` patterned bytes, checks every byte that comes, half-closes when it
/// has sent all, closes when it has heard the end.
final class Transfer {
    let id: ConnectionID
    let node: Node
    let total: Int
    let seed: UInt64
    let peerSeed: UInt64
    private(set) var sent = 0
    private(set) var received = 0
    private(set) var mismatch: Int?
    private(set) var isClosed = false
    private(set) var closeReason: CloseReason?
    private var hasClosedWrite = false
    private let clock: () -> Instant

    init(node: Node, id: ConnectionID, total: Int, seed: UInt64, peerSeed: UInt64, clock: @escaping () -> Instant) {
        self.node = node
        self.id = id
        self.total = total
        self.seed = seed
        self.peerSeed = peerSeed
        self.clock = clock
    }

    var isComplete: Bool { isClosed && mismatch == nil && sent == total }

    static func byte(at position: Int, seed: UInt64) -> UInt8 {
        UInt8(truncatingIfNeeded: ((UInt64(position) &+ seed) &* 0x9E37_79B9_7F4A_7C15) >> 56)
    }

    func handle(_ event: StackEvent) {
        switch event {
        case .connected, .writable: fill()
        case .accepted, .urgent, .datagrams, .udpWritable, .udpError, .udpClosed: break
        case .readable, .inputReset: drain()
        case .inputClosed:
            drain()
            finishIfDone(inputEnded: true)
        case .closed(_, let reason):
            isClosed = true
            closeReason = reason
        }
    }

    private var inputEnded = false

    func fill() {
        while sent < total {
            let count = min(16_384, total - sent)
            let chunk = (sent..<sent + count).map { Self.byte(at: $0, seed: seed) }
            let accepted = (try? node.core.stack.write(id, chunk.span.bytes, now: clock())) ?? 0
            sent += accepted
            if accepted < count { return }
        }
        if !hasClosedWrite {
            hasClosedWrite = true
            node.core.stack.closeWrite(id, now: clock())
            finishIfDone(inputEnded: false)
        }
    }

    private func drain() {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while node.core.stack.readableBytes(id) > 0 {
            var span = buffer.mutableSpan
            var raw = span.mutableBytes
            let count = (try? node.core.stack.read(id, into: &raw, now: clock())) ?? 0
            if count == 0 { return }
            for index in 0..<count where buffer[index] != Self.byte(at: received + index, seed: peerSeed) {
                if mismatch == nil { mismatch = received + index }
            }
            received += count
        }
    }

    private func finishIfDone(inputEnded ended: Bool) {
        if ended { inputEnded = true }
        if inputEnded && hasClosedWrite { node.core.stack.close(id, now: clock()) }
    }
}
