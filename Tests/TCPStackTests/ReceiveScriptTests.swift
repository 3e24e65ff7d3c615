import Inet
import TCPStack
import TestSupport
import Testing

/// Data from the peer: order, holes, duplicates, the window we offer.
@Suite struct ReceiveScriptTests {
    @Test("overlapping segments give the same bytes in every order")
    func overlaps() throws {
        let stream = (0..<60).map { UInt8($0) }
        let pieces = [0..<20, 10..<30, 25..<26, 15..<45, 40..<60]
        for order in permutations(Array(pieces.indices)) {
            let script = TCPScript()
            let id = try #require(script.establish(options: TCPScript.sack()))
            for index in order {
                let piece = pieces[index]
                script.send([], seq: 1001 + UInt32(piece.lowerBound), ack: 5001, text: Array(stream[piece]))
            }
            #expect(script.read(id) == stream, "\(order)")
        }
    }

    @Test("the window grows with what the application consumes") func autoTuning() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1000, scale: 7)))
        var seq: UInt32 = 1001
        var largest = 0
        for _ in 0..<2000 {
            for _ in 0..<8 {
                script.send([], seq: seq, ack: 5001, text: filled(1000, with: 1))
                seq &+= 1000
            }
            _ = script.read(id)
            for answer in script.all() { largest = max(largest, Int(answer.window) << 8) }
            script.now += .microseconds(10)
        }
        #expect(largest > 1 << 20)
        #expect(largest <= 16 << 20)
    }
}

func filled(_ count: Int, with byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: count) }

func permutations(_ items: [Int]) -> [[Int]] {
    guard items.count > 1 else { return [items] }
    return items.indices.flatMap { index -> [[Int]] in
        var rest = items
        let item = rest.remove(at: index)
        return permutations(rest).map { [item] + $0 }
    }
}
