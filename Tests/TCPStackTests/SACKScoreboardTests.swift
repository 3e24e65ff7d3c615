import Inet
import TCPStack
import Testing

@Suite struct SACKScoreboardTests {
    @Test("what was sent before a delivered segment is lost once it has had its time; the rest is looked at again")
    func losses() {
        var board = SACKScoreboard()
        for index in 0..<4 { board.append(start: start(index), length: 100, sentAt: now + .milliseconds(index)) }
        var rack = RACK()
        let later = now + .milliseconds(13)
        var delivery = Delivery(now: later)
        board.mark(SequenceRange(start(2), start(3)), delivery: &delivery)
        rack.update(delivery, now: later)
        #expect(rack.rtt == .milliseconds(11))
        var judged = board.judgeLosses(rack, window: .milliseconds(2), now: later)
        #expect(judged.lost == 100 && judged.hasMore)
        let deadline = rack.deadline(window: .milliseconds(2))
        #expect(deadline == now + .milliseconds(15))
        judged = board.judgeLosses(rack, window: .milliseconds(2), now: deadline)
        let pipe = board.pipe
        #expect(judged.lost == 100 && !judged.hasMore && pipe == 100)
        for expected in [0, 1] {
            let next = board.nextLost()
            #expect(next == expected)
            board.resent(expected, now: deadline)
        }
        let next = board.nextLost()
        #expect(next == nil)
    }

    @Test("a copy that is lost in turn is found by what was sent behind it") func lostCopy() {
        var board = board(segments: 2)
        _ = board.markFirstLost()
        board.resent(0, now: now + .milliseconds(10))
        board.append(start: start(2), length: 100, sentAt: now + .milliseconds(10))
        var rack = RACK()
        var delivery = Delivery(now: now + .milliseconds(20), minimumRTT: .milliseconds(5))
        board.mark(SequenceRange(start(1), start(3)), delivery: &delivery)
        rack.update(delivery, now: now + .milliseconds(20))
        let judged = board.judgeLosses(rack, window: .zero, now: now + .milliseconds(20))
        #expect(judged.lost == 100)
    }

    @Test("blocks that grow are walked once, and holes stay holes") func growingBlocks() {
        var board = board(segments: 100)
        for last in 2..<90 { mark(&board, 1, UInt32(last)) }
        mark(&board, 92, 95)
        mark(&board, 1, 91)
        let (sacked, pipe, first, hole) = (board.sackedBytes, board.pipe, board[0].flags, board[91].flags)
        #expect(sacked == 9300 && pipe == 700)
        #expect(!first.contains(.sacked) && !hole.contains(.sacked))
    }

    @Test("a peer that reneges gets everything again") func reneging() {
        var board = board(segments: 4)
        mark(&board, 0, 2)
        board.markTimedOut { _ in true }
        let (sacked, lost, pipe, next) = (board.sackedBytes, board.lostBytes, board.pipe, board.nextLost())
        #expect(sacked == 0 && lost == 400 && pipe == 0 && next == 0)
    }

    @Test("losses that are taken back are in the network again, in the order of sending") func takeBack() {
        var board = SACKScoreboard()
        for index in 0..<3 { board.append(start: start(index), length: 100, sentAt: now + .milliseconds(index)) }
        board.markAllLost()
        board.resent(0, now: now + .milliseconds(50))
        board.takeBackLosses()
        let (pipe, lost) = (board.pipe, board.lostBytes)
        #expect(pipe == 300 && lost == 0)
        // The copy was sent last: its delivery tells that the two others are overdue.
        var rack = RACK()
        var delivery = Delivery(now: now + .milliseconds(60))
        board.acknowledge(upTo: start(1), delivery: &delivery)
        rack.update(delivery, now: now + .milliseconds(60))
        let judged = board.judgeLosses(rack, window: .zero, now: now + .milliseconds(60))
        #expect(judged.lost == 200)
    }

    @Test("an ACK in mid-segment shortens it") func partial() {
        var board = board(segments: 3)
        var delivered = acknowledge(&board, 1150).newlyDelivered
        let first = board[0]
        var pipe = board.pipe
        #expect(delivered == 150 && first.start.rawValue == 1150 && first.length == 50 && pipe == 150)
        delivered = acknowledge(&board, 1300).newlyDelivered
        pipe = board.pipe
        #expect(delivered == 150 && pipe == 0)
    }

    @Test("what was sent twice measures nothing") func karn() {
        var board = board(segments: 2)
        board.markAllLost()
        board.resent(0, now: now)
        let delivery = acknowledge(&board, 1200)
        #expect(delivery.isAmbiguous)
    }

    @Test("cutting anew keeps the bytes, the FIN, and what was small enough") func resegment() {
        var board = SACKScoreboard()
        board.append(start: SequenceNumber(1000), length: 1000, sentAt: now)
        board.append(start: SequenceNumber(2000), length: 300, sentAt: now)
        board.append(start: SequenceNumber(2300), length: 500, sentAt: now)
        board.append(start: SequenceNumber(2800), length: 501, sentAt: now, flags: .fin)
        mark(&board, 13, 18)
        board.resegment(mss: 400)
        let (count, pipe, lost, sacked, last) = (board.count, board.pipe, board.lostBytes, board.sackedBytes, board[board.count - 1])
        #expect(count == 3 + 1 + 2 + 2 && pipe == 300 && lost == 1501 && sacked == 500)
        #expect(last.flags.contains(.fin) && last.end.rawValue == 3301)
    }

    @Test("the counters equal a recount after random events") func recount() {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        var board = SACKScoreboard()
        var rack = RACK()
        var now = now
        var una = SequenceNumber(UInt32.max - 20_000)
        var nxt = una
        for _ in 0..<5000 {
            now += .nanoseconds(random.next(below: 10))
            switch random.next(below: 9) {
            case 0...2:
                let length = 1 + Int(random.next(below: 200))
                board.append(start: nxt, length: length, sentAt: now)
                nxt += length
            case 3:
                let flight = una.distance(to: nxt)
                una += Int(random.next(below: UInt64(flight / 3 + 1)))
                var delivery = Delivery(now: now)
                board.acknowledge(upTo: una, delivery: &delivery)
                rack.update(delivery, now: now)
            case 4, 5:
                guard board.count > 1 else { continue }
                let first = Int(random.next(below: UInt64(board.count)))
                let last = min(board.count - 1, first + Int(random.next(below: 4)))
                var delivery = Delivery(now: now)
                board.mark(SequenceRange(board[first].start, board[last].end), delivery: &delivery)
                rack.update(delivery, now: now)
                _ = board.judgeLosses(rack, window: .nanoseconds(Int64(random.next(below: 20))), now: now)
            case 6:
                if let lost = board.nextLost() { board.resent(lost, now: now) }
            case 7:
                if random.next(below: 5) == 0 { board.resegment(mss: 40 + Int(random.next(below: 100))) } else { board.takeBackLosses() }
            default:
                if random.next(below: 10) == 0 { board.markAllLost() } else { _ = board.markFirstLost() }
            }
            var pipe = 0
            for index in 0..<board.count {
                let segment = board[index]
                if segment.flags.isDisjoint(with: [.sacked, .lost]) { pipe += Int(segment.length) }
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
        var delivery = Delivery(now: now)
        board.mark(SequenceRange(SequenceNumber(1000 + first * 100), SequenceNumber(1000 + end * 100)), delivery: &delivery)
    }

    private func acknowledge(_ board: inout SACKScoreboard, _ ack: UInt32) -> Delivery {
        var delivery = Delivery(now: now)
        board.acknowledge(upTo: SequenceNumber(ack), delivery: &delivery)
        return delivery
    }

    private func start(_ index: Int) -> SequenceNumber { SequenceNumber(1000 + UInt32(index) * 100) }
}
