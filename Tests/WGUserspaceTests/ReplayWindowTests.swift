import TestSupport
import Testing
import WGUserspace

@Suite struct ReplayWindowTests {
    @Test("the vectors' sequences are accepted and refused as stated")
    func vectors() throws {
        for sequence in try VectorFile("wireguard").root["replay_window"].array {
            var window = ReplayWindow()
            let note = try sequence["note"].string
            for step in try sequence["sequence"].array {
                let counter = try step[0].integer
                // The limit is the keypair's to check, before the window.
                let isAccepted = counter < Constants.rejectAfterMessages && window.accept(counter)
                #expect(try isAccepted == step[1].bool, "\(note): \(counter)")
            }
        }
    }

    @Test("in any order within the window each counter is accepted exactly once")
    func anyOrder() {
        var window = ReplayWindow()
        var generator = SystemRandomNumberGenerator()
        let seed = generator.next()
        var state = seed
        func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
        var seen = Set<UInt64>()
        var highest: UInt64 = 0
        for _ in 0..<50_000 {
            let counter = next() % 16 == 0 ? highest &+ next() % 300 : highest &- min(highest, next() % 9000)
            let isTooOld = highest > counter && highest - counter > ReplayWindow.usableBitCount
            let expected = !isTooOld && !seen.contains(counter)
            #expect(window.accept(counter) == expected, "seed \(seed), counter \(counter), highest \(highest)")
            if expected { seen.insert(counter) }
            highest = max(highest, counter)
        }
    }
}
