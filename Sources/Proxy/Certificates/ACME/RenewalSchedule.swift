import FoundationEssentials
import Inet

/// When the certificate for one set of names is asked for, and how again after a failure. All of it is persisted, so that a
/// restart is no reason to try earlier.
///
///     no certificate ─▶ due at once ─ failed ─▶ back-off ─▶ (staging) ─▶ due ─▶ succeeded ─▶ waits for its time ─▶ due ...
///
/// Its time is a random one in the window that the CA suggests (RFC 9773), else two thirds of the lifetime, half of one under ten
/// days, with jitter. It does not ask, order or count validations (`ValidationBudget` does that, across all sets).
///
/// Source: RFC 9773 §4.2, §4.3; the published limits of Let's Encrypt.
package struct RenewalSchedule: Codable, Equatable, Sendable {
    /// Of the certificate that is served.
    package struct Lifetime: Codable, Equatable, Sendable {
        package var notBefore: Date
        package var notAfter: Date

        package init(notBefore: Date, notAfter: Date) {
            self.notBefore = notBefore
            self.notAfter = notAfter
        }

        var length: TimeInterval { max(notAfter.timeIntervalSince(notBefore), 0) }
        func point(_ share: Double) -> Date { notBefore + length * share }
    }

    /// What the owner does next.
    package enum Step: Equatable, Sendable {
        case wait(until: Date)
        /// Asks the CA for the suggested window of the certificate that is served.
        case askRenewalInfo
        /// Orders; at the staging directory first if `rehearsal`.
        case order(rehearsal: Bool)
    }

    package private(set) var lifetime: Lifetime?
    /// The suggested window, and the random moment in it. Drawn again only when the window moves.
    package private(set) var window: Window?
    /// The moment without a window.
    private var ownTime: Date?
    private var askAt: Date?
    /// In a row.
    @ExactInteger package private(set) var failures = 0
    package private(set) var notBefore: Date?
    private var needsRehearsal = false
    /// When certificates for this set were issued, the latest last, as many as count.
    private var issued: [Date] = []
    /// What a CA has said of its limits: nobody's wish goes beyond it.
    private var limitedUntil: Date?
    /// An operator wants the next order, whatever is counted here.
    private var isForced = false
    /// For status.
    package private(set) var lastFailure: String?

    package struct Window: Codable, Equatable, Sendable {
        package var start: Date
        package var end: Date
        package var chosen: Date
    }

    package init() {}

    /// - Parameters:
    ///   - hasRenewalInfo: the CA's directory names it, and the certificate has an identifier.
    ///   - hasStaging: there is a directory to rehearse at.
    ///   - budget: the earliest moment at which another validation of every name may fail.
    package func step(now: Date, hasRenewalInfo: Bool, hasStaging: Bool, budget: Date? = nil) -> Step {
        if hasRenewalInfo, lifetime != nil, failures == 0, !isForced, isAskDue(now) { return .askRenewalInfo }
        let due = orderTime(now: now, budget: budget)
        if due <= now { return .order(rehearsal: needsRehearsal && hasStaging) }
        guard hasRenewalInfo, lifetime != nil, failures == 0, let askAt else { return .wait(until: due) }
        return .wait(until: min(due, askAt))
    }

    private func isAskDue(_ now: Date) -> Bool {
        guard let askAt else { return true }
        return askAt <= now || askAt > now + Self.longestAsk
    }

    /// When the next order is due. In the past, or now, if it is.
    package func orderTime(now: Date, budget: Date? = nil) -> Date {
        var time = renewalTime ?? now
        // Further ahead than anything that is set here: the clock was wrong then.
        if let notBefore, notBefore <= now + ACMEDates.longestRetry + Self.longestAsk { time = max(time, notBefore) }
        if let limitedUntil, limitedUntil <= now + ACMEDates.longestRetry + Self.longestAsk { time = max(time, limitedUntil) }
        if let budget { time = max(time, budget) }
        // Whatever a window says: the limit of equal certificates is not run into.
        let counted = issued.filter { $0 <= now }
        if counted.count >= Self.maximumIssued, !isForced {
            time = max(time, counted[counted.count - Self.maximumIssued] + Self.issuedPeriod)
        }
        return time
    }

    /// When the certificate that is served is to be replaced; nil without one. Never in the last quarter of its lifetime: an outage of ten days is then survived by 45 days.
    package var renewalTime: Date? {
        guard let lifetime, let ownTime else { return nil }
        return min(window?.chosen ?? ownTime, lifetime.point(Self.latestShare))
    }

    /// Renewal is late by a tenth of the lifetime: somebody has to hear of it.
    package func isOverdue(now: Date) -> Bool {
        guard let lifetime, let renewalTime else { return false }
        return now > renewalTime + lifetime.length / 10
    }

    /// A certificate was issued, or one was found at start (`isNew` false: it does not count as issued by us now).
    package mutating func succeed(_ lifetime: Lifetime, isNew: Bool = true, now: Date, random: RandomSource) {
        self.lifetime = lifetime
        let share = lifetime.length < Self.shortLifetime ? Self.shortShare : Self.longShare
        ownTime = lifetime.point(share) - Self.draw(lifetime.length * Self.jitterShare, random)
        (window, askAt, failures, notBefore, limitedUntil, needsRehearsal, isForced, lastFailure) = (
            nil, nil, 0, nil, nil, false, false, nil
        )
        if isNew { countIssued(now: now) }
    }

    /// RFC 9773 §4.2: a uniformly random moment in the window. §4.3.2: asked again at `Retry-After`, with the bounds given there.
    package mutating func receive(_ info: ACMERenewalInfo, retryAfter: Date?, now: Date, random: RandomSource) {
        let wait = retryAfter.map { min(max($0.timeIntervalSince(now), Self.shortestAsk), Self.longestAsk) } ?? Self.usualAsk
        askAt = now + wait
        // An operator's wish is not put off.
        guard !isForced, window?.start != info.start || window?.end != info.end else { return }
        let chosen = info.start + Self.draw(info.end.timeIntervalSince(info.start), random)
        window = Window(start: info.start, end: info.end, chosen: chosen)
    }

    /// RFC 9773 §4.3.3: no answer. What was suggested last holds.
    package mutating func failRenewalInfo(retryAfter: Date? = nil, now: Date) {
        askAt = max(now + Self.shortestAsk, min(retryAfter ?? now + Self.usualAsk, now + Self.longestAsk))
    }

    /// The order failed.
    package mutating func fail(_ failure: ACMEFailure, rehearsal: Bool, now: Date, random: RandomSource) {
        lastFailure = String(failure.description.prefix(Self.maximumFailure))
        isForced = false
        // Staging shows whether the names validate. That it is down, or has limits of its own, says nothing about production.
        if rehearsal && failure.kind != .validation {
            needsRehearsal = false
            return
        }
        failures = min(max(failures, 0), 999) + 1
        // Where nothing was validated there is nothing to rehearse.
        needsRehearsal = failure.kind == .validation || failure.kind == .refused
        var delay = Self.backOff[min(failures, Self.backOff.count) - 1]
        if let lifetime, now < lifetime.notAfter + Self.expiredCare {
            // Closer to the end, and just behind it, a try counts for more.
            let left = lifetime.notAfter.timeIntervalSince(now)
            delay = min(delay, left > 0 ? max(left / 8, Self.urgentDelay) : Self.expiredDelay)
        }
        notBefore = now + delay + Self.draw(delay / 10, random)
        if failure.kind == .rateLimited {
            limitedUntil = failure.retryAfter ?? now + Self.rateLimitDelay
            notBefore = max(notBefore ?? now, limitedUntil ?? now)
        } else if let retryAfter = failure.retryAfter {
            notBefore = max(notBefore ?? now, min(retryAfter, now + Self.longestAsk))
        }
    }

    /// It worked at the staging directory: production is next, at once.
    package mutating func rehearsalSucceeded() { needsRehearsal = false }

    /// One that was found: nothing is asked at the start, and of many not at once.
    package mutating func deferAsk(now: Date, random: RandomSource) { askAt = now + Self.shortestAsk + Self.draw(Self.foundAsk, random) }

    /// The CA may have issued one that never arrived: it counts as much.
    package mutating func countIssued(now: Date) {
        issued.append(now)
        issued.removeFirst(max(issued.count - Self.maximumIssued, 0))
    }

    /// The certificate is there no more: another is due at once, or when the back-off is over.
    package mutating func lose() { (lifetime, ownTime, window, askAt) = (nil, nil, nil, nil) }

    /// By the operator: now, whatever the back-off says and has been issued. What the CA says of its limits is still obeyed.
    package mutating func forceNow(_ now: Date) {
        (failures, notBefore, needsRehearsal, isForced) = (0, nil, false, true)
        if lifetime != nil { window = Window(start: now, end: now, chosen: now) }
    }

    private static func draw(_ limit: TimeInterval, _ random: RandomSource) -> TimeInterval {
        Double(random.nextUInt64() >> 11) / Double(1 << 53) * max(limit, 0)
    }

    /// 1, 2, 2, 5, 10, 10, 10, 20 minutes, then rising to 6 hours.
    package static let backOff: [TimeInterval] = [1, 2, 2, 5, 10, 10, 10, 20, 20, 20, 40, 60, 120, 180, 240, 360].map { $0 * 60 }
    /// Characters of a failure that are kept.
    static let maximumFailure = 400
    static let shortLifetime: TimeInterval = 10 * 86_400
    static let shortShare = 0.5
    static let longShare = 2.0 / 3
    /// Renewals spread over a fiftieth of the lifetime, always early.
    static let jitterShare = 0.02
    static let latestShare = 0.75
    static let foundAsk: TimeInterval = 1_800
    static let shortestAsk: TimeInterval = 60
    static let longestAsk: TimeInterval = 86_400
    static let usualAsk: TimeInterval = 6 * 3_600
    static let rateLimitDelay: TimeInterval = 3_600
    static let urgentDelay: TimeInterval = 1_200
    static let expiredDelay: TimeInterval = 3_600
    static let expiredCare: TimeInterval = 2 * 86_400
    /// Let's Encrypt: five certificates for the same names in seven days; one is left for whatever else has that set.
    static let maximumIssued = 4
    static let issuedPeriod: TimeInterval = 7 * 86_400
}

/// Failed validations of each name in the last hour, at the production directory, across all certificates. Persisted.
///
/// Source: the published limits of Let's Encrypt: five in an hour; one is left for somebody else's mistake.
package struct ValidationBudget: Codable, Equatable, Sendable {
    private var failed: [String: [Date]] = [:]

    package init() {}

    package func remaining(_ name: DomainPattern, now: Date) -> Int {
        Self.limit - min(counted(name, now: now).count, Self.limit)
    }

    private func counted(_ name: DomainPattern, now: Date) -> [Date] {
        failed[name.constraint, default: []].filter { $0 > now - Self.period && $0 <= now }
    }

    /// When a validation of every one of these names may fail again; nil if it may now.
    package func nextTime(_ names: [DomainPattern], now: Date) -> Date? {
        names.compactMap { name in
            let counted = counted(name, now: now)
            return counted.count < Self.limit ? nil : counted[counted.count - Self.limit] + Self.period
        }.max()
    }

    package mutating func record(_ name: DomainPattern, now: Date) {
        failed = failed.compactMapValues { dates in
            let kept = dates.filter { $0 > now - Self.period && $0 <= now }
            return kept.isEmpty ? nil : kept
        }
        failed[name.constraint, default: []].append(now)
    }

    package static let limit = 4
    static let period: TimeInterval = 3_600
}
