import Inet
import Noise
import Testing
import WGUserspace

@Suite struct TimestampGuardTests {
    private let day: UInt64 = 86_400
    private let today: UInt64 = 1_700_000_000

    private func label(_ seconds: UInt64) -> TAI64N { TAI64N(WallTime(seconds: seconds)) }
    private func wall(_ seconds: UInt64) -> WallTime { WallTime(seconds: seconds) }

    /// Judges as the device does.
    private func take(_ stamps: inout TimestampGuard, _ seconds: UInt64, at clock: UInt64) -> TimestampGuard.Verdict {
        let verdict = stamps.judge(label(seconds), wallTime: wall(clock))
        if verdict == .refused { _ = stamps.refuse(label(seconds)) } else { stamps.accept(label(seconds), as: verdict) }
        return verdict
    }

    @Test("only a greater timestamp is new; what was refused is counted until one is accepted")
    func growth() {
        var stamps = TimestampGuard(last: label(today))
        #expect(take(&stamps, today, at: today) == .refused)
        #expect(take(&stamps, today - 60, at: today) == .refused)
        #expect(stamps.refusedCount == 2 && stamps.lastRefused == label(today - 60))
        #expect(stamps.refusedBehind == .seconds(60))
        #expect(take(&stamps, today + 1, at: today) == .new)
        #expect(stamps.refusedCount == 0 && stamps.refusedBehind == nil)
        #expect(stamps.last == label(today + 1))
    }

    @Test("more than a day ahead is accepted and not kept: the peer is not shut out when its clock is put right")
    func farAhead() {
        var stamps = TimestampGuard()
        #expect(take(&stamps, today + day, at: today) == .new)
        var other = TimestampGuard(last: label(today - 5))
        #expect(take(&other, today + day + 1, at: today) == .newAndFarAhead)
        #expect(take(&other, today + 365 * day, at: today) == .newAndFarAhead)
        #expect(other.last == label(today - 5))
        #expect(take(&other, today + 1, at: today + 2) == .new)
        #expect(other.last == label(today + 1))
    }

    @Test("a timestamp from the future is not accepted twice, not even when our clock has caught up")
    func farAheadReplay() {
        var stamps = TimestampGuard()
        let future = [today + 2 * day, today + 3 * day, today + 10 * day]
        for seconds in future { #expect(take(&stamps, seconds, at: today) == .newAndFarAhead) }
        for clock in stride(from: today, to: today + 12 * day, by: Int(day / 3)) {
            for seconds in future { #expect(take(&stamps, seconds, at: clock) == .refused, "clock \(clock - today)") }
        }
        // What is later than all of them is new.
        #expect(take(&stamps, today + 10 * day + 1, at: today + 10 * day) == .new)
        for seconds in future { #expect(take(&stamps, seconds, at: today + 12 * day) == .refused) }
    }

    @Test("whatever comes in whatever order on whatever clocks, no timestamp is accepted twice", arguments: 0..<4)
    func property(run: Int) {
        let seed = UInt64.random(in: 0..<1_000_000) &* 10 &+ UInt64(run)
        let random = RandomSource.seeded(seed)
        var stamps = TimestampGuard()
        var accepted: Set<UInt64> = []
        var clock = today
        for _ in 0..<20_000 {
            clock += random.next(below: day / 4)
            if random.next(below: 200) == 0 { clock -= min(clock, random.next(below: 30 * day)) }
            let stamp = random.next(below: 3) == 0 ? accepted.randomElement() ?? clock : clock + random.next(below: 6 * day)
            if take(&stamps, stamp, at: clock) != .refused { #expect(accepted.insert(stamp).inserted, "seed \(seed)") }
        }
        #expect(!accepted.isEmpty)
    }

    @Test("a peer's word about its time may be anything")
    func extremes() throws {
        let bytes = [UInt8](repeating: 0xFF, count: 12)
        let label = TAI64N(bytes.span.bytes)
        let last = try #require(label)
        var stamps = TimestampGuard()
        #expect(stamps.judge(last, wallTime: wall(.max)) == .new)
        #expect(stamps.judge(last, wallTime: wall(today)) == .newAndFarAhead)
        stamps.accept(last, as: .newAndFarAhead)
        #expect(take(&stamps, 0, at: today) == .new)
        #expect(stamps.judge(last, wallTime: wall(today)) == .refused)
        _ = stamps.refuse(last)
        #expect(stamps.refusedBehind == .zero)
    }
}
