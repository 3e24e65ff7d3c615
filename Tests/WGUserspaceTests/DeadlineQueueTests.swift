import Inet
import Testing
import WGUserspace

@Suite struct DeadlineQueueTests {
    @Test("the earliest deadline comes first, whatever was scheduled, moved up and removed")
    func agreesWithOracle() {
        let seed = UInt64.random(in: 0..<1_000_000)
        let random = RandomSource.seeded(seed)
        var queue = DeadlineQueue()
        var oracle: [Int: Instant] = [:]
        for step in 0..<5000 {
            let peer = Int(random.next(below: 40))
            switch random.next(below: 4) {
            case 0:
                queue.remove(peer)
                oracle[peer] = nil
            case 1:
                let now = Instant(nanoseconds: random.next(below: 500))
                if let due = queue.popDue(now: now) {
                    #expect(oracle[due] == oracle.values.min(), "seed \(seed), step \(step)")
                    oracle[due] = nil
                } else {
                    #expect(oracle.values.allSatisfy { $0 > now }, "seed \(seed), step \(step)")
                }
            default:
                let deadline = Instant(nanoseconds: random.next(below: 1000))
                queue.schedule(peer, by: deadline)
                oracle[peer] = min(deadline, oracle[peer] ?? deadline)
            }
            #expect(queue.earliest == oracle.values.min(), "seed \(seed), step \(step)")
        }
    }

    @Test("what is not armed is not scheduled")
    func notArmed() {
        var queue = DeadlineQueue()
        queue.schedule(3, by: .distantFuture)
        #expect(queue.earliest == nil)
    }
}
