import Inet
import TCPStack
import Testing

@Suite struct CongestionControllerTests {
    @Test("slow start doubles the window for a window acknowledged", arguments: [CongestionAlgorithm.cubic, .newReno])
    func slowStart(algorithm: CongestionAlgorithm) {
        var controller = CongestionController(algorithm, mss: 1000)
        #expect(controller.cwnd == 10_000)
        for _ in 0..<10 { acknowledge(&controller, 1000, at: .zero) }
        #expect(controller.cwnd == 20_000)
    }

    @Test("the initial window is ten segments, at most 14,600 bytes unless two segments are more") func initialWindow() {
        #expect(CongestionController.initialWindow(mss: 1368) == 13_680)
        #expect(CongestionController.initialWindow(mss: 1460) == 14_600)
        #expect(CongestionController.initialWindow(mss: 8960) == 17_920)
    }

    @Test("NewReno halves on loss and adds a segment for each window") func newReno() {
        var controller = CongestionController(.newReno, mss: 1000)
        controller.reduce(flightSize: 10_000)
        #expect(controller.cwnd == 5000 && controller.ssthresh == 5000)
        for _ in 0..<5 { acknowledge(&controller, 1000, at: .zero) }
        #expect(controller.cwnd == 6000)
    }

    @Test("CUBIC cuts to 0.7, comes back to where it was after K, and then grows faster") func cubic() {
        var controller = CongestionController(.cubic, mss: 1000)
        while controller.cwnd < 1_000_000 { acknowledge(&controller, 10_000, at: .zero) }
        let before = controller.cwnd
        controller.reduce(flightSize: before)
        #expect(abs(controller.cwnd - before * 7 / 10) < 2000)
        // K = cbrt(1000 * 0.3 / 0.4), about 9.1 s.
        var atK = 0
        for step in 0..<150 {
            let time = Duration.milliseconds(step * 100)
            if time <= .milliseconds(9000) { atK = controller.cwnd }
            for _ in 0..<10 { acknowledge(&controller, controller.cwnd / 10, at: time) }
        }
        #expect(abs(atK - before) < before / 20)
        #expect(controller.cwnd > before + before / 20)
    }

    @Test("a timeout leaves one segment, and only the first of a row cuts ssthresh") func timeout() {
        var controller = CongestionController(.cubic, mss: 1000)
        controller.timedOut(flightSize: 10_000, isRepeated: false)
        #expect(controller.cwnd == 1000 && controller.ssthresh == 7000)
        controller.timedOut(flightSize: 10_000, isRepeated: true)
        #expect(controller.ssthresh == 7000)
    }

    @Test("a reduction in vain is taken back", arguments: [CongestionAlgorithm.cubic, .newReno])
    func takeBack(algorithm: CongestionAlgorithm) {
        var controller = CongestionController(algorithm, mss: 1000)
        for _ in 0..<90 { acknowledge(&controller, 1000, at: .zero) }
        let threshold = controller.ssthresh
        controller.timedOut(flightSize: 100_000, isRepeated: false)
        #expect(controller.cwnd == 1000)
        controller.takeBack()
        #expect(controller.cwnd == 100_000 && controller.ssthresh == threshold)
        controller.takeBack()
        #expect(controller.cwnd == 100_000)
    }

    @Test("silence does not shrink the window: what follows is paced") func idle() {
        var controller = CongestionController(.cubic, mss: 1000)
        for _ in 0..<90 { acknowledge(&controller, 1000, at: .zero) }
        controller.idled()
        #expect(controller.cwnd == 100_000)
    }

    @Test("slow start slows down when round trips grow by an eighth, and ends five rounds later") func hyStart() {
        var controller = CongestionController(.cubic, mss: 1000)
        var (una, nxt) = (SequenceNumber(0), SequenceNumber(0))
        var growth: [Double] = []
        for round in 0..<12 where controller.isInSlowStart {
            let before = controller.cwnd
            nxt = una + before
            for _ in 0..<(before / 1000) {
                una += 1000
                controller.acknowledged(
                    1000, afterTimeout: false, una: una, nxt: nxt, rtt: .milliseconds(round < 3 ? 100 : 120), now: now,
                    srtt: .milliseconds(100))
            }
            growth.append(Double(controller.cwnd) / Double(before))
        }
        #expect(growth.prefix(3).allSatisfy { $0 == 2 })
        #expect(growth.dropFirst(4).dropLast().allSatisfy { abs($0 - 1.25) < 0.05 }, "\(growth)")
        #expect(!controller.isInSlowStart && (9...10).contains(growth.count), "\(growth)")
    }

    @Test("conservative slow start goes back to slow start when round trips are short again") func hyStartResumes() {
        var start = HyStart()
        var una = SequenceNumber(0)
        var isOver = false
        for milliseconds in [100, 100, 120, 100, 100, 100, 100, 100, 100, 100, 100, 100] {
            let nxt = una + 10_000
            for _ in 0..<10 {
                una += 1000
                isOver = start.acknowledged(una: una, nxt: nxt, rtt: .milliseconds(milliseconds)) || isOver
            }
        }
        #expect(!isOver && !start.isConservative)
    }

    private let now = Instant(nanoseconds: 1_000_000)

    private func acknowledge(_ controller: inout CongestionController, _ bytes: Int, at time: Duration) {
        controller.acknowledged(
            bytes, afterTimeout: false, una: SequenceNumber(0), nxt: SequenceNumber(0), rtt: nil, now: now + time, srtt: .milliseconds(100))
    }
}
