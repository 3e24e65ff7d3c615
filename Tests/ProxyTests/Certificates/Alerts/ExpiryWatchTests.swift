import FoundationEssentials
import Proxy
import Testing

@Suite struct ExpiryWatchTests {
    /// Checks from one day (a fraction counts) to another, every minute or so.
    private func run(
        _ watch: inout ExpiryWatch, _ certificates: [WatchedCertificate] = [], missing: [MissingCertificate] = [], from: Double, to: Double,
        step: TimeInterval = 600
    ) -> [(day: Double, alert: CertificateAlert)] {
        var result: [(Double, CertificateAlert)] = []
        var time = from * day
        while time <= to * day {
            result += watch.check(certificates, missing: missing, now: testNow + time).map { (time / day, $0) }
            time += step
        }
        return result
    }

    private func certificate(
        _ name: String = "a.example", from: Double = 0, days: Double = 90, isOverdue: Bool = false, lastFailure: String? = nil
    ) -> WatchedCertificate {
        WatchedCertificate(
            name: name, notBefore: testNow + from * day, notAfter: testNow + (from + days) * day, isOverdue: isOverdue,
            lastFailure: lastFailure)
    }

    @Test("each level is told once, when it is reached", arguments: [90.0, 45, 6, 1])
    func levels(days: Double) {
        var watch = ExpiryWatch()
        let alerts = run(&watch, [certificate(days: days)], from: 0, to: days + 30)
        #expect(alerts.map(\.alert.level) == [.quarter, .eighth, .twentyFourth, .expired])
        #expect(alerts.map(\.alert.event) == [.expiring, .expiring, .expiring, .expired])
        for (alert, share) in zip(alerts, [3.0 / 4, 7.0 / 8, 23.0 / 24, 1]) {
            #expect(alert.day >= days * share && alert.day <= days * share + 601 / day)
        }
        #expect(alerts.last?.alert.message == "Certificate of a.example has expired")
    }

    @Test("two years of renewals on time are told of by nobody", arguments: [90.0, 45, 6])
    func silence(days: Double) {
        var watch = ExpiryWatch()
        let share = days < 10 ? 0.5 : 2.0 / 3
        var start = 0.0
        while start < 730 {
            #expect(run(&watch, [certificate(from: start, days: days)], from: start, to: start + days * share, step: 3_600).isEmpty)
            start += days * share
        }
        #expect(watch.count == 0)
    }

    @Test("two years in which every second renewal comes late: told, then taken back, and nothing is left over", arguments: [90.0, 45, 6])
    func lateRenewals(days: Double) {
        var watch = ExpiryWatch()
        var start = 0.0
        var isLate = false
        while start < 730 {
            let end = start + days * (isLate ? 0.9 : 0.6)
            let alerts = run(&watch, [certificate(from: start, days: days)], from: start, to: end, step: 3_600)
            // What the one before it left open is taken back by the first look at its replacement.
            let expected: [CertificateAlert.Event] = (start > 0 && !isLate ? [.recovered] : []) + (isLate ? [.expiring, .expiring] : [])
            #expect(alerts.map(\.alert.event) == expected)
            start = end
            isLate.toggle()
        }
        _ = watch.check([certificate(from: start, days: days)], missing: [], now: testNow + start * day)
        #expect(watch.count == 0)
    }

    @Test("of several levels that were passed while nobody looked, only the most urgent is told")
    func mostUrgent() {
        var watch = ExpiryWatch()
        let certificate = certificate(isOverdue: true)
        #expect(watch.check([certificate], missing: [], now: testNow + 10 * day).map(\.event) == [.renewalOverdue])
        let alerts = watch.check([certificate], missing: [], now: testNow + 87 * day)
        #expect(alerts.map(\.level) == [.twentyFourth])
        var other = ExpiryWatch()
        // Nor is the late renewal told beside it.
        let both = other.check([certificate], missing: [], now: testNow + 80 * day)
        #expect(
            both.map(\.event) == [.expiring]
                && both.first?.message == "Certificate of a.example expires in 10 d 0 h, and its renewal is overdue")
        #expect(other.check([certificate], missing: [], now: testNow + 80.1 * day).isEmpty)
    }

    @Test("a renewal that is overdue is told once, with the failure, and not again behind a level")
    func overdue() {
        var watch = ExpiryWatch()
        let fine = certificate(days: 6)
        let late = certificate(days: 6, isOverdue: true, lastFailure: "ACME, order: \u{1B}[31m" + String(repeating: "x", count: 2_000))
        #expect(watch.check([fine], missing: [], now: testNow + 3 * day).isEmpty)
        let alerts = run(&watch, [late], from: 3.7, to: 5)
        #expect(alerts.map(\.alert.event) == [.renewalOverdue, .expiring])
        let failure = alerts.first?.alert.lastFailure ?? ""
        #expect(failure.hasPrefix("ACME, order: \\u{1B}[31m") && failure.utf8.count <= 400)
    }

    @Test("a restart repeats nothing, whenever it comes")
    func restarts() throws {
        var watch = ExpiryWatch()
        var events: [CertificateAlert.Event] = []
        for hour in 0..<(100 * 24) {
            let missing = [MissingCertificate(name: "b.example", since: testNow + Double(hour) * 3_600)]
            let all = [certificate(days: 90, isOverdue: hour > 69 * 24)]
            events += watch.check(all, missing: missing, now: testNow + Double(hour) * 3_600).map(\.event)
            watch = try JSONDecoder().decode(ExpiryWatch.self, from: try JSONEncoder().encode(watch))
        }
        // The missing name's hour begins at the first check, whatever its owner says later.
        #expect(events == [.missing, .expiring, .renewalOverdue, .expiring, .expiring, .expired])
    }

    @Test("what a clock far ahead has told is taken back, and told again in its time; a small correction is nothing")
    func jumps() {
        var watch = ExpiryWatch()
        let missing = [MissingCertificate(name: "b.example", since: testNow)]
        var events: [CertificateAlert.Event] = []
        for time in [0.0, 400, 1, 89, -4_000, 2, 91, 0, 88, 30_000, 0] {
            events += watch.check([certificate()], missing: missing, now: testNow + time * day).map(\.event)
        }
        #expect(
            events == [
                .expired, .missing, .recovered, .expiring, .recovered, .expired, .recovered, .expiring, .expired, .recovered,
            ])
        var small = ExpiryWatch()
        events = [90, 90 - 60 / day, 90, 90 - 3_000 / day, 91].flatMap {
            small.check([certificate()], missing: [], now: testNow + $0 * day).map(\.event)
        }
        #expect(events == [.expired])
        // A moment ahead of now, from when the clock was wrong, does not silence a name for ever.
        var other = ExpiryWatch()
        let future = [MissingCertificate(name: "c.example", since: testNow + 900 * day)]
        let alerts = run(&other, missing: future, from: 0, to: 0.2)
        #expect(alerts.map(\.alert.event) == [.missing] && (alerts.first?.day ?? 0) * day >= 3_600)
    }

    @Test("a name without a certificate is told of after an hour, a restart notwithstanding, and taken back when it has one")
    func missing() {
        var watch = ExpiryWatch()
        let first = run(
            &watch, missing: [MissingCertificate(name: "a.example", since: testNow, lastFailure: "no")], from: 0, to: 0.03, step: 60)
        #expect(first.isEmpty)
        // The owner begins to count again.
        let restarted = MissingCertificate(name: "a.example", since: testNow + 0.03 * day, lastFailure: "no")
        let alerts = run(&watch, missing: [restarted], from: 0.03, to: 3, step: 60)
        #expect(alerts.map(\.alert.message) == ["Certificate not found a.example"] && alerts.first?.alert.lastFailure == "no")
        #expect(((alerts.first?.day ?? 0) * day - 3_600).magnitude < 61)
        let recovered = watch.check([certificate(from: 3)], missing: [], now: testNow + 3 * day)
        #expect(recovered.map(\.message) == ["Certificate of a.example is good again for 90 d 0 h"])
        #expect(watch.count == 0)
        // And the next time it is told again.
        let again = MissingCertificate(name: "a.example", since: testNow + 10 * day)
        #expect(run(&watch, missing: [again], from: 10, to: 11).map(\.alert.event) == [.missing])
    }

    @Test("a replacement that is no better takes nothing back; the one behind it does, once")
    func replacements() {
        var watch = ExpiryWatch()
        #expect(watch.check([certificate()], missing: [], now: testNow + 80 * day).map(\.level) == [.eighth])
        let short = certificate(from: 60, days: 21)
        #expect(watch.check([short], missing: [], now: testNow + 80 * day).map(\.event) == [.expiring])
        let good = certificate(from: 80)
        #expect(watch.check([good], missing: [], now: testNow + 80.1 * day).map(\.event) == [.recovered])
        #expect(watch.check([good], missing: [], now: testNow + 80.2 * day).isEmpty)
    }

    @Test("a certificate that is lost after it was told of, then missing, then there: each is told once")
    func lost() {
        var watch = ExpiryWatch()
        var events = run(&watch, [certificate()], from: 80, to: 81).map(\.alert.event)
        let missing = MissingCertificate(name: "a.example", since: testNow + 81 * day)
        events += run(&watch, missing: [missing], from: 81, to: 85).map(\.alert.event)
        events += run(&watch, [certificate(from: 85)], from: 85, to: 86).map(\.alert.event)
        #expect(events == [.expiring, .missing, .recovered])
    }

    @Test("several certificates of one name are told of by themselves, equal ones once")
    func several() {
        var watch = ExpiryWatch()
        let (old, new) = (certificate(), certificate(from: 60))
        #expect(watch.check([old, old, new], missing: [], now: testNow + 80 * day).map(\.level) == [.eighth])
        #expect(watch.check([old, new], missing: [], now: testNow + 81 * day).isEmpty)
        #expect(watch.check([new], missing: [], now: testNow + 82 * day).map(\.event) == [.recovered])
        // A name is missing or not: the certificate counts.
        let missing = MissingCertificate(name: "a.example", since: testNow)
        #expect(watch.check([new], missing: [missing], now: testNow + 83 * day).isEmpty)
    }

    @Test("names that are gone are kept for a day, since a start may not know all of them yet, then forgotten")
    func gone() {
        var watch = ExpiryWatch()
        _ = watch.check([certificate()], missing: [], now: testNow + 80 * day)
        #expect(run(&watch, from: 80, to: 80.9).isEmpty && watch.count == 1)
        #expect(watch.check([certificate()], missing: [], now: testNow + 80.95 * day).isEmpty)
        #expect(run(&watch, from: 81, to: 81.9).isEmpty && watch.count == 1)
        #expect(run(&watch, from: 81.9, to: 82.1).isEmpty && watch.count == 0)
    }

    @Test("what is remembered is bounded, and what cannot be remembered is not told each minute")
    func bound() {
        var watch = ExpiryWatch()
        let all = (0..<ExpiryWatch.maximumNames + 500).map { certificate("\($0).example") }
        #expect(watch.check(all, missing: [], now: testNow + 80 * day).count == ExpiryWatch.maximumNames)
        #expect(watch.count == ExpiryWatch.maximumNames)
        #expect(watch.check(all, missing: [], now: testNow + 80.01 * day).isEmpty)
        #expect(watch.isIncomplete)
    }

    @Test("names without a certificate make room for those whose certificate ends")
    func eviction() {
        var watch = ExpiryWatch()
        let missing = (0..<ExpiryWatch.maximumNames).map { MissingCertificate(name: "\($0).example", since: testNow) }
        #expect(watch.check([], missing: missing, now: testNow).isEmpty && !watch.isIncomplete)
        let alerts = watch.check([certificate()], missing: missing, now: testNow + 80 * day)
        #expect(alerts.first?.event == .expiring && alerts.count == ExpiryWatch.maximumNames)
        #expect(watch.isIncomplete && watch.count == ExpiryWatch.maximumNames)
    }

    @Test("lifetimes that make no sense are told of when they are over, and never trap")
    func nonsense() {
        var watch = ExpiryWatch()
        let backwards = WatchedCertificate(name: "a", notBefore: testNow + day, notAfter: testNow)
        let endless = WatchedCertificate(name: "b", notBefore: .distantPast, notAfter: .distantFuture)
        let wild = WatchedCertificate(
            name: "c", notBefore: testNow, notAfter: Date(timeIntervalSinceReferenceDate: .greatestFiniteMagnitude))
        let alerts = watch.check([backwards, endless, wild], missing: [], now: testNow - day)
        #expect(alerts.isEmpty)
        #expect(watch.check([backwards, endless, wild], missing: [], now: testNow + day).map(\.event) == [.expired])
    }
}
