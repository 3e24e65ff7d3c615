import Glibc
import Inet
import TestSupport
import Testing

/// Two stacks under whatever a path and applications can do to them.
@Suite struct StackSimulationTests {
    /// The same 4,000 scenarios each time, so that a change is judged by what it changed; `KAKUREMICHI_SEED` draws others, and
    /// `bench simulate --seconds` looks for new ones.
    static let seed: UInt64 = {
        let given = getenv("KAKUREMICHI_SEED").flatMap { UInt64(String(cString: $0)) }
        let seed = given ?? 7_103_864_163_464_381_375
        print("simulation: KAKUREMICHI_SEED=\(seed)")
        return seed
    }()

    @Test("whatever is drawn, bytes arrive whole and nothing stays behind", arguments: 0..<40) func drawn(round: Int) {
        for number in 0..<100 { Self.expectGood(.drawn(from: Self.seed &+ UInt64(round * 100 + number))) }
    }

    @Test("10,000 connections at once come and go", arguments: [IPAddress.Family.v4, .v6]) func tenThousand(family: IPAddress.Family) {
        Self.expectGood(.large(family, seed: Self.seed))
    }

    @Test("a connection that is given up for memory with unread bytes does not count as finished") func unreadBytes() {
        var scenario = StackScenario(seed: 14_468_473_501_468_048_807)
        scenario.connections = 200
        scenario.spread = .milliseconds(200)
        scenario.largest = 8939
        scenario.configuration.memoryLimit = 131_072
        scenario.configuration.keepalive = .seconds(300)
        scenario.hasTurns = false
        scenario.hasDisorder = false
        (scenario.up.delay, scenario.down.delay) = (.microseconds(6537), .microseconds(6537))
        Self.expectGood(scenario)
    }

    @Test("the budget for memory is met where a path gets narrower too, not at the next segment of a stranger") func narrowPath() {
        Self.expectGood(.drawn(from: 16_243_844_608_670_426_587))
    }

    @Test("an end whose reset was lost in an outage is found gone by keepalive, however long that takes") func lostReset() {
        Self.expectGood(.drawn(from: 16_744_273_745_004_307_192))
    }

    static func expectGood(_ scenario: StackScenario) {
        guard let fault = scenario.run() else { return }
        let smallest = scenario.shrunk()
        Issue.record("bench simulate --seed \(scenario.seed): \(fault)\nsmallest: \(smallest)\n\(smallest.run() ?? "")")
    }
}
