import Inet
import TCPStack
import Testing

@Suite struct SACKScoreboardTests {
    @Test("three reported segments above make one lost") func threshold() {
        var board = board(segments: 10)
        mark(&board, 2, 3)
        var isLost = board.judgeLosses()
        #expect(!isLost)
        mark(&board, 4, 6)
        isLost = board.judgeLosses()
        #expect(isLost)
        var (lost, pipe) = (board.lostBytes, board.pipe)
        #expect(lost == 200 && pipe == 1000 - 300 - 200)
        for expected in [0, 1] {
            let next = board.nextLost()
            #expect(next == expected)
            board.resent(expected, now: now)
        }
        let next = board.nextLost()
        (lost, pipe) = (board.lostBytes, board.pipe)
        #expect(next == nil && lost == 200 && pipe == 700)
    }

    @Test("the segments between reported ones are judged by what lies above them") func holesBetween() {
        var board = board(segments: 10)
        mark(&board, 1, 2)
        mark(&board, 5, 6)
        mark(&board, 7, 8)
        _ = board.judgeLosses()
        var lost = board.lostBytes
        #expect(lost == 100)
        mark(&board, 9, 10)
        _ = board.judgeLosses()
        lost = board.lostBytes
        #expect(lost == 400)
    }

    @Test("an ACK in mid-segment shortens it") func partial() {
        var board = board(segments: 3)
        var delivered = board.acknowledge(upTo: SequenceNumber(1150)).newlyDelivered
        let first = board[0]
        var pipe = board.pipe
        #expect(delivered == 150 && first.start.rawValue == 1150 && first.length == 50 && pipe == 150)
        delivered = board.acknowledge(upTo: SequenceNumber(1300)).newlyDelivered
        pipe = board.pipe
        #expect(delivered == 150 && pipe == 0)
    }

    @Test("what was sent twice measures nothing") func karn() {
        var board = board(segments: 2)
        board.markAllLost()
        board.resent(0, now: now)
        let delivery = board.acknowledge(upTo: SequenceNumber(1200))
        #expect(delivery.isAmbiguous)
    }

    @Test("cutting anew keeps the bytes and the FIN") func resegment() {
        var board = SACKScoreboard()
        board.append(start: SequenceNumber(1000), length: 1000, sentAt: now)
        board.append(start: SequenceNumber(2000), length: 501, sentAt: now, flags: .fin)
        board.resegment(mss: 400)
        let (count, pipe, lost, last) = (board.count, board.pipe, board.lostBytes, board[board.count - 1])
        #expect(count == 4 && pipe == 0 && lost == 1501)
        #expect(last.flags.contains(.fin) && last.end.rawValue == 2501)
    }

    @Test("the counters equal a recount after random events") func recount() {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        var board = SACKScoreboard()
        var una = SequenceNumber(UInt32.max - 20_000)
        var nxt = una
        for _ in 0..<5000 {
            switch random.next(below: 8) {
            case 0...2:
                let length = 1 + Int(random.next(below: 200))
                board.append(start: nxt, length: length, sentAt: now)
                nxt += length
            case 3:
                let flight = una.distance(to: nxt)
                una += Int(random.next(below: UInt64(flight / 3 + 1)))
                _ = board.acknowledge(upTo: una)
            case 4, 5:
                guard board.count > 1 else { continue }
                let first = Int(random.next(below: UInt64(board.count)))
                let last = min(board.count - 1, first + Int(random.next(below: 4)))
                var delivery = SACKScoreboard.Delivery()
                board.mark(SequenceRange(board[first].start, board[last].end), delivery: &delivery)
                _ = board.judgeLosses()
            case 6:
                if let lost = board.nextLost() { board.resent(lost, now: now) }
            default:
                if random.next(below: 10) == 0 { board.markAllLost() } else { _ = board.markFirstLost() }
            }
            var pipe = 0
            for index in 0..<board.count {
                let segment = board[index]
                if segment.flags.contains(.sacked) { continue }
                if !segment.flags.contains(.lost) { pipe += Int(segment.length) }
                if segment.flags.contains(.resent) { pipe += Int(segment.length) }
            }
            let counted = board.pipe
            #expect(counted == pipe, "seed \(seed)")
            guard counted == pipe else { return }
        }
    }

    private let now = Instant(nanoseconds: 5)

    private func board(segments: Int) -> SACKScoreboard {
        var board = SACKScoreboard()
        for index in 0..<segments { board.append(start: SequenceNumber(1000 + UInt32(index) * 100), length: 100, sentAt: now) }
        return board
    }

    private func mark(_ board: inout SACKScoreboard, _ first: UInt32, _ end: UInt32) {
        var delivery = SACKScoreboard.Delivery()
        board.mark(SequenceRange(SequenceNumber(1000 + first * 100), SequenceNumber(1000 + end * 100)), delivery: &delivery)
    }
}
