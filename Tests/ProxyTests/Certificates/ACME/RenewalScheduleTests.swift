import FoundationEssentials
import Inet
import Proxy
import Testing

private let start = Date(timeIntervalSince1970: 1_800_000_000)
private let minute: TimeInterval = 60
private let hour: TimeInterval = 3_600

private func lifetime(_ days: Double, from: Date = start) -> RenewalSchedule.Lifetime {
    .init(notBefore: from, notAfter: from + days * day)
}
private let refused = ACMEFailure(.order, .refused, "no")
private let down = ACMEFailure(.directory, .unavailable, "down")
private let invalid = ACMEFailure(.authorization, .validation, "http-01 failed")

/// A CA, its outages and its windows, and one schedule, in virtual time.
private struct Years {
    var lifetimeDays: Double
    var hasRenewalInfo = false
    var outages: [ClosedRange<Date>] = []
    /// The window for a certificate, given its lifetime and how often was asked for it.
    var window: (RenewalSchedule.Lifetime, Int) -> (Date, Date) = { lifetime, _ in (lifetime.notBefore, lifetime.notAfter) }
    let random: RandomSource

    private(set) var issued: [RenewalSchedule.Lifetime] = []
    private(set) var attempts: [Date] = []
    private(set) var questions: [Date] = []

    init(_ lifetimeDays: Double, seed: UInt64) {
        self.lifetimeDays = lifetimeDays
        random = .seeded(seed)
    }

    mutating func run(days: Double = 730) throws {
        var (schedule, now, asked, steps) = (RenewalSchedule(), start, 0, 0)
        while now < start + days * day {
            steps += 1
            guard steps < 50_000 else { throw FixtureError(text: "it spins at \(now)") }
            // Restarts: nothing that counts is lost.
            if steps % 5 == 0 { schedule = try JSONDecoder().decode(RenewalSchedule.self, from: JSONEncoder().encode(schedule)) }
            let isUp = !outages.contains { $0.contains(now) }
            switch schedule.step(now: now, hasRenewalInfo: hasRenewalInfo, hasStaging: true) {
            case .wait(let until):
                guard until > now else { throw FixtureError(text: "it waits for the past") }
                now = until
            case .askRenewalInfo:
                questions.append(now)
                if isUp, let lifetime = schedule.lifetime {
                    let window = window(lifetime, asked)
                    asked += 1
                    schedule.receive(.init(start: window.0, end: window.1), retryAfter: now + 6 * hour, now: now, random: random)
                } else {
                    schedule.failRenewalInfo(now: now)
                }
            case .order(let rehearsal):
                if rehearsal {
                    if isUp { schedule.rehearsalSucceeded() } else { schedule.fail(down, rehearsal: true, now: now, random: random) }
                    continue
                }
                attempts.append(now)
                if isUp {
                    let lifetime = RenewalSchedule.Lifetime(notBefore: now - hour, notAfter: now - hour + lifetimeDays * day)
                    issued.append(lifetime)
                    asked = 0
                    schedule.succeed(lifetime, now: now, random: random)
                } else {
                    schedule.fail(down, rehearsal: false, now: now, random: random)
                }
            }
        }
    }

    /// The spans without a valid certificate between the first and the last.
    var gaps: [ClosedRange<Date>] {
        zip(issued, issued.dropFirst()).compactMap { old, new in
            let from = new.notBefore + hour
            return from > old.notAfter ? old.notAfter...from : nil
        }
    }

    /// The most events of `dates` in any span of this length.
    static func most(_ dates: [Date], in span: TimeInterval) -> Int {
        dates.indices.map { first in dates[first...].prefix { $0 < dates[first] + span }.count }.max() ?? 0
    }
}

@Suite struct RenewalScheduleTests {
    @Test("without a certificate it is due at once; afterwards at two thirds of the lifetime, at half of a short one, a little early")
    func ownTime() throws {
        var schedule = RenewalSchedule()
        #expect(schedule.step(now: start, hasRenewalInfo: true, hasStaging: true) == .order(rehearsal: false))
        for (days, share) in [(90.0, 2.0 / 3), (45, 2.0 / 3), (10, 2.0 / 3), (6.67, 0.5)] {
            var times: Set<Date> = []
            for seed in 0..<50 {
                schedule.succeed(lifetime(days), now: start, random: .seeded(UInt64(seed)))
                let time = try #require(schedule.renewalTime)
                #expect(time <= start + days * day * share && time >= start + days * day * (share - 0.02))
                times.insert(time)
            }
            #expect(times.count == 50)
        }
    }

    @Test("a random moment in the suggested window, drawn again only when the window moves")
    func window() throws {
        var schedule = RenewalSchedule()
        schedule.succeed(lifetime(90), now: start, random: .seeded(1))
        #expect(schedule.step(now: start, hasRenewalInfo: true, hasStaging: false) == .askRenewalInfo)
        let info = ACMERenewalInfo(start: start + 50 * day, end: start + 52 * day)
        schedule.receive(info, retryAfter: nil, now: start, random: .seeded(2))
        let first = try #require(schedule.renewalTime)
        #expect(first >= info.start && first <= info.end)
        #expect(schedule.step(now: start, hasRenewalInfo: true, hasStaging: false) == .wait(until: start + 6 * hour))
        schedule.receive(info, retryAfter: nil, now: start + 6 * hour, random: .seeded(3))
        #expect(schedule.renewalTime == first)
        // It moves into the past: at once.
        schedule.receive(.init(start: start - day, end: start - hour), retryAfter: nil, now: start + day, random: .seeded(4))
        #expect(schedule.step(now: start + day, hasRenewalInfo: true, hasStaging: true) == .order(rehearsal: false))
        // It moves beyond the end: never in the last quarter.
        schedule.receive(.init(start: start + 200 * day, end: start + 300 * day), retryAfter: nil, now: start + day, random: .seeded(5))
        #expect(schedule.renewalTime == start + 67.5 * day)
    }

    @Test("the window is asked for again at Retry-After, between a minute and a day")
    func askAgain() {
        for (retryAfter, wait) in [(0.0, minute), (30, minute), (3_600, hour), (90_000, day), (30 * day, day)] {
            var schedule = RenewalSchedule()
            schedule.succeed(lifetime(90), now: start, random: .seeded(1))
            let info = ACMERenewalInfo(start: start + 50 * day, end: start + 52 * day)
            schedule.receive(info, retryAfter: start + retryAfter, now: start, random: .seeded(2))
            #expect(schedule.step(now: start, hasRenewalInfo: true, hasStaging: false) == .wait(until: start + wait))
            schedule.failRenewalInfo(now: start + wait)
            #expect(schedule.step(now: start + wait, hasRenewalInfo: true, hasStaging: false) == .wait(until: start + wait + 6 * hour))
        }
    }

    @Test("back-off of 1, 2, 2, 5, 10, 10, 10, 20 minutes and so on to six hours, a tenth late at most")
    func backOff() throws {
        var schedule = RenewalSchedule()
        var now = start
        let minutes: [Double] = [1, 2, 2, 5, 10, 10, 10, 20, 20, 20, 40, 60, 120, 180, 240, 360, 360, 360]
        for wanted in minutes {
            schedule.fail(refused, rehearsal: false, now: now, random: .seeded(1))
            let next = schedule.orderTime(now: now)
            #expect(next >= now + wanted * minute && next <= now + wanted * minute * 1.1)
            schedule = try JSONDecoder().decode(RenewalSchedule.self, from: JSONEncoder().encode(schedule))
            now = next
        }
        #expect(schedule.lastFailure == "ACME, order: no")
        schedule.succeed(lifetime(90, from: now), now: now, random: .seeded(1))
        #expect(schedule.failures == 0 && schedule.lastFailure == nil && schedule.notBefore == nil)
    }

    @Test("a record that somebody has written into is no reason to fall over")
    func hostileRecord() throws {
        let random = RandomSource.seeded(3)
        let fault = ACMEFailure(.order, .unavailable, "down")
        let whole = String(decoding: try JSONEncoder().encode(RenewalSchedule()), as: UTF8.self)
        for number in hostileNumbers + ["-5", "-9223372036854775808", "9223372036854774784", "1e3"] {
            let text = whole.split(separator: #""failures":0"#, omittingEmptySubsequences: false).joined(
                separator: #""failures":"# + number)
            #expect(text != whole)
            guard var schedule = try? JSONDecoder().decode(RenewalSchedule.self, from: Data(text.utf8)) else { continue }
            schedule.fail(fault, rehearsal: false, now: start, random: random)
            #expect((1...1_000).contains(schedule.failures))
        }
        // Moments in the future do not count, and hide none that do.
        let name = try patterns("app.example.com")[0]
        var budget = ValidationBudget()
        for _ in 0..<ValidationBudget.limit { budget.record(name, now: start) }
        let json = String(decoding: try JSONEncoder().encode(budget), as: UTF8.self)
        let added = json.split(separator: "]").joined(separator: ",9e9,9e9,9e9,9e9]")
        let read = try JSONDecoder().decode(ValidationBudget.self, from: Data(added.utf8))
        #expect(read.nextTime([name], now: start + 60) == start + 3_600)
        #expect(read.nextTime([name], now: start + 3_600) == nil)
    }

    @Test("a rate limit is obeyed when it names a moment, for an hour when it does not, and also where the end is near")
    func rateLimited() {
        for end in [90.0, 1] {
            var schedule = RenewalSchedule()
            schedule.succeed(lifetime(end), now: start, random: .seeded(1))
            schedule.fail(
                ACMEFailure(.order, .rateLimited, "x", retryAfter: start + 3 * day), rehearsal: false, now: start, random: .seeded(1))
            #expect(schedule.notBefore == start + 3 * day)
            schedule.fail(ACMEFailure(.order, .rateLimited, "x"), rehearsal: false, now: start, random: .seeded(1))
            #expect(schedule.notBefore == start + hour)
        }
    }

    @Test("after a failure staging comes first; what fails there costs production nothing, and staging that is down is passed over")
    func rehearsal() {
        var schedule = RenewalSchedule()
        schedule.fail(invalid, rehearsal: false, now: start, random: .seeded(1))
        let next = start + 2 * minute
        #expect(schedule.step(now: next, hasRenewalInfo: false, hasStaging: true) == .order(rehearsal: true))
        #expect(schedule.step(now: next, hasRenewalInfo: false, hasStaging: false) == .order(rehearsal: false))
        schedule.fail(invalid, rehearsal: true, now: next, random: .seeded(1))
        #expect(schedule.failures == 2)
        let later = next + 3 * minute
        #expect(schedule.step(now: later, hasRenewalInfo: false, hasStaging: true) == .order(rehearsal: true))
        var passed = schedule
        passed.fail(down, rehearsal: true, now: later, random: .seeded(1))
        #expect(passed.step(now: later, hasRenewalInfo: false, hasStaging: true) == .order(rehearsal: false))
        schedule.rehearsalSucceeded()
        #expect(schedule.step(now: later, hasRenewalInfo: false, hasStaging: true) == .order(rehearsal: false))
        // A CA that is down has not looked at any name.
        schedule.fail(down, rehearsal: false, now: later, random: .seeded(1))
        #expect(schedule.step(now: later + day, hasRenewalInfo: false, hasStaging: true) == .order(rehearsal: false))
    }

    @Test("four failed validations of a name in an hour, wildcard and apex as one, then it waits for the first to be an hour old")
    func budget() throws {
        var budget = ValidationBudget()
        let names = try patterns("example.com", "*.example.com", "other.example")
        for index in 0..<4 {
            #expect(budget.nextTime(names, now: start + Double(index) * minute) == nil)
            budget.record(names[index % 2], now: start + Double(index) * minute)
        }
        let now = start + 4 * minute
        #expect(budget.remaining(names[0], now: now) == 0 && budget.remaining(names[2], now: now) == 4)
        #expect(budget.nextTime(names, now: now) == start + hour)
        budget = try JSONDecoder().decode(ValidationBudget.self, from: JSONEncoder().encode(budget))
        let due = RenewalSchedule().step(now: now, hasRenewalInfo: false, hasStaging: false, budget: budget.nextTime(names, now: now))
        #expect(due == .wait(until: start + hour))
        #expect(budget.remaining(names[0], now: start + hour) == 1)
        // A clock that is set back forgives, and locks nobody out.
        #expect(budget.nextTime(names, now: start - day) == nil)
    }

    @Test("a name that never validates: at most four failures in any hour, though every try is another challenge")
    func hopeless() throws {
        var (schedule, budget, now) = (RenewalSchedule(), ValidationBudget(), start)
        let names = try patterns("example.com")
        var failures: [Date] = []
        while now < start + 7 * day {
            switch schedule.step(now: now, hasRenewalInfo: false, hasStaging: false, budget: budget.nextTime(names, now: now)) {
            case .wait(let until): now = until
            case .askRenewalInfo: throw FixtureError(text: "there is nothing to ask for")
            case .order:
                for _ in 0..<min(2, budget.remaining(names[0], now: now)) {
                    budget.record(names[0], now: now)
                    failures.append(now)
                }
                schedule.fail(invalid, rehearsal: false, now: now, random: .seeded(1))
            }
        }
        #expect(Years.most(failures, in: hour) == 4)
        #expect(failures.count < 120)
    }

    @Test("a CA whose windows always lie in the past gets four orders for the same names in seven days, no more")
    func eagerWindows() throws {
        var years = Years(90, seed: 1)
        years.hasRenewalInfo = true
        years.window = { lifetime, _ in (lifetime.notBefore - day, lifetime.notBefore - hour) }
        try years.run(days: 60)
        #expect(Years.most(years.issued.map(\.notBefore), in: 7 * day) == 4)
    }

    @Test("a clock that was years ahead once does not stop renewals for years")
    func wrongClock() {
        var schedule = RenewalSchedule()
        let ahead = start + 3_650 * day
        for _ in 0..<5 { schedule.succeed(lifetime(90), now: ahead, random: .seeded(1)) }
        schedule.fail(refused, rehearsal: false, now: ahead, random: .seeded(1))
        #expect(schedule.step(now: start + 61 * day, hasRenewalInfo: false, hasStaging: false) == .order(rehearsal: false))
    }

    @Test("overdue is a tenth of the lifetime late; by hand it is due at once")
    func overdue() throws {
        var schedule = RenewalSchedule()
        #expect(!schedule.isOverdue(now: start))
        schedule.succeed(lifetime(90), now: start, random: .seeded(1))
        let time = try #require(schedule.renewalTime)
        #expect(!schedule.isOverdue(now: time + 8 * day) && schedule.isOverdue(now: time + 10 * day))
        schedule.fail(refused, rehearsal: false, now: start, random: .seeded(1))
        schedule.forceNow(start + day)
        #expect(schedule.step(now: start + day, hasRenewalInfo: false, hasStaging: true) == .order(rehearsal: false))
    }

    @Test("an outage that ends half an hour before the certificate does leaves no gap", arguments: [90.0, 45, 6])
    func lastMinute(days: Double) throws {
        for seed in 0..<20 as Range<UInt64> {
            var years = Years(days, seed: seed)
            let end = start - hour + days * day
            years.outages = [start + 1...end - 30 * minute]
            try years.run(days: days * 1.5)
            #expect(years.issued.count >= 2 && years.gaps.isEmpty)
        }
    }

    @Test("two years: lifetimes of 90, 45 and 6 days, windows that move, outages of an hour, a day and ten days", arguments: [90.0, 45, 6])
    func twoYears(days: Double) async throws {
        for seed in 0..<8 as Range<UInt64> {
            for outage in [0, hour, day, 10 * day] {
                // No windows, windows that move, windows that are always late.
                for shares in [[], [0.6, 0.5, 0.7, 0.95], [0.95]] {
                    // Tests that have a deadline share the threads.
                    await Task.yield()
                    var years = Years(days, seed: seed)
                    years.hasRenewalInfo = !shares.isEmpty
                    var random = TestRandom(state: seed)
                    if outage > 0 {
                        for month in 0..<24 where month > 0 {
                            let begin = start + Double(month) * 30 * day + Double.random(in: 0...10 * day, using: &random)
                            years.outages.append(begin...begin + outage)
                        }
                    }
                    years.window = { lifetime, asked in
                        let length = lifetime.notAfter.timeIntervalSince(lifetime.notBefore)
                        let begin = lifetime.notBefore + length * shares[asked / 9 % shares.count]
                        return (begin, begin + length / 20)
                    }
                    try years.run()
                    // What is without a certificate was so because of the CA: until shortly before, and shortly after, it was down.
                    for gap in years.gaps {
                        let culprit = try #require(
                            years.outages.first { $0.contains(gap.lowerBound) }, "\(days) \(outage) seed \(seed): \(gap)")
                        #expect(gap.upperBound <= culprit.upperBound + 1.2 * hour + (outage > 2 * day ? 6 * hour : 0))
                    }
                    if days > 6 || outage <= day { #expect(years.gaps.isEmpty, "\(days) \(outage) seed \(seed)") }
                    #expect(Years.most(years.issued.map(\.notBefore), in: 7 * day) <= 5)
                    // An eager schedule would be as wrong as a late one.
                    #expect(Double(years.issued.count) <= 730 / days * 2.2 + 3)
                    if shares.isEmpty { #expect(years.questions.isEmpty) }
                }
            }
        }
    }
}
