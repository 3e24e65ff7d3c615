import FoundationEssentials
import Inet

/// One issuance, from newOrder to a certificate that is checked.
///
///     ordering ─▶ reading ─▶ presenting ─▶ answering ─▶ validating ─▶ awaitingReady ─▶ finalizing ─▶ processing ─▶ downloading ─▶ finished
///        ▲        (each authorization of the order in turn)  │                                                    (alternates)
///        └──────── a validation failed: the next type ───────┘
///
/// The owner does what comes out and reports back, one thing at a time. What was presented stays until the end, and is
/// the owner's to take away then. It does not store anything, does not decide when to try again, and leaves authorizations of a
/// given-up order as they are.
///
/// Source: RFC 8555 §7.1.6, §7.4, §7.5.
package struct ACMEOrder: Sendable {
    package enum Action: Equatable, Sendable {
        case send(ACMERequest)
        case wait(until: Instant)
        /// Make it stand where the CA looks, then `challengeReady` or `challengeUnavailable`.
        case present(ACMEChallenge)
        case done(ACMECertificate)
        case failed(ACMEFailure)
    }

    package let plan: ACMEPlan
    /// To be kept for the next order: it knows the account and has nonces.
    package internal(set) var session: ACMESession
    /// What counts against the budget of a name, each challenge by itself.
    package internal(set) var failedValidations: [ACMEChallenge] = []
    /// It failed behind finalize: the CA may have issued a certificate that nobody has, and counts it.
    package private(set) var mayHaveIssued = false
    /// Why a type of challenge was left for another, as it happened; for the log.
    package internal(set) var notes: [String] = []

    var state = State.idle
    /// Types that did not work for a name in this issuance.
    private var tried: [DomainPattern: Set<ACMEChallengeType>] = [:]
    private var lastFailure: ACMEFailure?
    private(set) var deadline = Instant.distantFuture
    private var pollAt: Instant?
    private var hasRegisteredAgain = false

    package init(_ plan: ACMEPlan, session: ACMESession) {
        self.plan = plan
        self.session = session
    }

    package mutating func start(now: ACMEMoment) -> Action {
        guard case .idle = state else { return fail(.order, .refused, "an order starts once") }
        guard !plan.names.isEmpty else { return fail(.order, .refused, "no names") }
        deadline = now.instant + plan.timeLimit
        return newOrder(replaces: plan.replaces != nil, now: now)
    }

    package mutating func receive(_ response: ACMEResponse, now: ACMEMoment) -> Action {
        isOver(now) ?? follow(session.receive(response, now: now), now: now)
    }

    /// The request that was sent has no answer.
    package mutating func receiveFailure(_ reason: String, now: ACMEMoment) -> Action {
        isOver(now) ?? follow(session.receiveFailure(reason, now: now), now: now)
    }

    /// The challenge that was to be presented stands, and was seen to where that can be looked at.
    package mutating func challengeReady(now: ACMEMoment) -> Action {
        if let over = isOver(now) { return over }
        guard case .presenting(let issue, let index) = state else { return fail(.challenge, .refused, "no challenge was to be presented") }
        return present(issue, from: index + 1, now: now)
    }

    /// It could not be presented: another type is taken in the same authorization, for the CA has not looked yet.
    package mutating func challengeUnavailable(_ reason: String, now: ACMEMoment) -> Action {
        if let over = isOver(now) { return over }
        guard case .presenting(var issue, let index) = state else { return fail(.challenge, .refused, "no challenge was to be presented") }
        let task = issue.tasks[index]
        tried[task.challenge.name, default: []].insert(task.challenge.type)
        let failure = ACMEFailure(
            .challenge, .unavailable, "\(task.challenge.type.rawValue) of \(task.challenge.name) could not be presented: \(reason)")
        notes.append("\(failure)")
        lastFailure = failure
        switch makeTask(task.authorization, for: task.challenge.name, offers: task.offers) {
        case .success(let other):
            issue.tasks[index] = other
            return present(issue, from: index, now: now)
        case .failure(let failure): return end(failure)
        }
    }

    package mutating func handleTimeout(now: ACMEMoment) -> Action {
        if let over = isOver(now) { return over }
        if session.nextDeadline != nil { return follow(session.handleTimeout(now: now), now: now) }
        guard let due = pollAt else { return fail(.order, .refused, "nothing was waited for") }
        guard now.instant >= due else { return .wait(until: min(due, deadline)) }
        pollAt = nil
        switch state {
        case .validating(let issue, let index, _): return ask(issue.tasks[index].authorization, .authorization, now: now)
        case .awaitingReady(let issue, _): return ask(issue.url, .order, now: now)
        case .processing(let issue, _): return ask(issue.url, .processing, now: now)
        case .idle, .ordering, .reading, .presenting, .answering, .finalizing, .downloading, .alternates, .finished:
            return fail(.order, .refused, "nothing was waited for")
        }
    }

    // MARK: steps, which `ACMEOrder+Answers` takes too

    mutating func newOrder(replaces: Bool, now: ACMEMoment) -> Action {
        state = .ordering(replaces: replaces)
        let order = ACMENewOrder(names: plan.names, profile: plan.profile, replaces: replaces ? plan.replaces : nil)
        return begin(.newOrder(order), .order, now: now)
    }

    /// Presents the first task from `index` on; behind the last they are answered.
    mutating func present(_ issue: Issue, from index: Int, now: ACMEMoment) -> Action {
        guard index < issue.tasks.count else { return answer(issue, from: 0, now: now) }
        state = .presenting(issue, index)
        return .present(issue.tasks[index].challenge)
    }

    /// RFC 8555 §7.5.1: an empty object, once for each challenge.
    mutating func answer(_ issue: Issue, from index: Int, now: ACMEMoment) -> Action {
        guard let next = issue.tasks.indices.dropFirst(index).first(where: { !issue.tasks[$0].isAnswered }) else {
            return validate(issue, from: 0, now: now)
        }
        state = .answering(issue, next)
        return begin(.post(issue.tasks[next].url, payload: Array("{}".utf8)), .challenge, now: now)
    }

    /// Asks for the authorization of each task until it is decided; then for the order, or begins a new one.
    mutating func validate(_ issue: Issue, from index: Int, now: ACMEMoment) -> Action {
        if index < issue.tasks.count {
            state = .validating(issue, index, attempt: 0)
            return ask(issue.tasks[index].authorization, .authorization, now: now)
        }
        if let lastFailure, issue.hasFailed {
            let counts = Dictionary(grouping: failedValidations, by: \.name).mapValues(\.count)
            let isHopeless = issue.tasks.contains { task in
                tried[task.challenge.name, default: []].contains(task.challenge.type) && !hasType(for: task)
            }
            return isHopeless || counts.values.contains { $0 >= plan.maximumFailures }
                ? end(lastFailure) : newOrder(replaces: plan.replaces != nil, now: now)
        }
        state = .awaitingReady(issue, attempt: 0)
        return ask(issue.url, .order, now: now)
    }

    /// Another order would offer a type that was not tried; CAs offer the same again.
    private func hasType(for task: Task) -> Bool {
        let name = task.challenge.name
        return plan.challenges.contains { type in
            type.isUsable(for: name) && !tried[name, default: []].contains(type) && task.offers.contains { $0.type == type.rawValue }
        }
    }

    /// The first configured type that the CA offers and that has not failed yet.
    func makeTask(
        _ authorization: ACMEURL, for name: DomainPattern, offers: [ACMEChallengeObject]
    ) -> Result<Task, ACMEFailure> {
        let tried = tried[name] ?? []
        for type in plan.challenges where type.isUsable(for: name) && !tried.contains(type) {
            for offer in offers where offer.type == type.rawValue && (offer.status == .pending || offer.status == .processing) {
                guard let challenge = challenge(type, for: name, offer) else { continue }
                return .success(
                    Task(
                        authorization: authorization, url: offer.url, offers: offers, challenge: challenge,
                        isAnswered: offer.status == .processing))
            }
        }
        if let lastFailure, !tried.isEmpty { return .failure(lastFailure) }
        let types = offers.map(\.type).joined(separator: ", ")
        return .failure(
            ACMEFailure(
                .challenge, .refused,
                "no usable challenge for \(name): configured are \(plan.challenges.map(\.rawValue).joined(separator: ", ")), the CA offers \(types)"
            ))
    }

    /// Nil if the offer lacks what its type needs.
    private func challenge(_ type: ACMEChallengeType, for name: DomainPattern, _ offer: ACMEChallengeObject) -> ACMEChallenge? {
        switch type {
        case .http01, .tlsALPN01, .dns01:
            guard let token = offer.usableToken else { return nil }
            let text = KeyAuthorization.text(token: token, thumbprint: session.key.thumbprint)
            return ACMEChallenge(type: type, name: name, token: token, keyAuthorization: text)
        case .dnsPersist01:
            // The record must never speak for an account other than ours.
            guard let issuers = offer.usableIssuers, let account = session.account?.text, offer.accountURI ?? account == account else {
                return nil
            }
            return ACMEChallenge(
                type: type, name: name, token: "", keyAuthorization: "",
                persistDemand: DNSPersistDemand(domain: name, issuers: issuers, accountURI: account))
        }
    }

    mutating func recordFailure(of challenge: ACMEChallenge, _ problem: ACMEProblem?) {
        tried[challenge.name, default: []].insert(challenge.type)
        failedValidations.append(challenge)
        let failure = ACMEFailure(
            .authorization, .validation, "\(challenge.type.rawValue) of \(challenge.name) failed", problem: problem)
        notes.append("\(failure)")
        lastFailure = failure
    }

    mutating func begin(_ intent: ACMESession.Intent, _ stage: ACMEStage, now: ACMEMoment) -> Action {
        follow(session.begin(intent, stage: stage, now: now), now: now)
    }

    mutating func ask(_ url: ACMEURL, _ stage: ACMEStage, now: ACMEMoment) -> Action { begin(.read(url), stage, now: now) }

    mutating func poll(_ response: ACMEResponse, attempt: Int, _ stage: ACMEStage, now: ACMEMoment) -> Action {
        guard attempt < Self.maximumPolls else { return fail(stage, .unavailable, "no decision after \(attempt) questions") }
        let due = now.pollTime(response, attempt: attempt)
        pollAt = due
        return .wait(until: min(due, deadline))
    }

    mutating func fail(_ stage: ACMEStage, _ kind: ACMEFailure.Kind, _ reason: String, _ problem: ACMEProblem? = nil) -> Action {
        end(ACMEFailure(stage, kind, reason, problem: problem))
    }

    /// Nobody goes on with it. What the CA was told to look at, and has not decided yet, counts as failed: it is being taken away.
    package mutating func abandon() { _ = fail(.order, .unavailable, "it was given up") }

    mutating func end(_ failure: ACMEFailure) -> Action {
        switch state {
        case .answering(let issue, _), .validating(let issue, _, _), .awaitingReady(let issue, _):
            for task in issue.tasks where task.isAnswered && !task.isDecided { failedValidations.append(task.challenge) }
        case .finalizing, .processing, .downloading, .alternates: mayHaveIssued = true
        case .idle, .ordering, .reading, .presenting, .finished: break
        }
        state = .finished
        return .failed(failure)
    }

    private mutating func follow(_ progress: ACMESession.Progress, now: ACMEMoment) -> Action {
        switch progress {
        case .send(let request): return .send(request)
        case .wait(let until): return .wait(until: min(until, deadline))
        case .answered(let response): return receiveAnswer(response, now: now)
        case .failed(let failure): return receiveRefusal(failure, now: now)
        }
    }

    private mutating func receiveRefusal(_ failure: ACMEFailure, now: ACMEMoment) -> Action {
        if case .alternates(let issue, let first, _) = state { return install(first, issue, now: now) }
        // The CA has lost or deleted the account, and this order with it.
        if failure.problem?.type == "accountDoesNotExist", !hasRegisteredAgain {
            hasRegisteredAgain = true
            return newOrder(replaces: plan.replaces != nil, now: now)
        }
        switch state {
        // RFC 9773 §5: `alreadyReplaced`. Whatever else is wrong with `replaces` must not stand in the way of a renewal either.
        case .ordering(replaces: true) where failure.kind == .refused && failure.stage == .order: return newOrder(replaces: false, now: now)
        // RFC 8555 §7.4: also what a repeated finalize gets.
        case .finalizing(let issue) where failure.problem?.type == "orderNotReady" && issue.finalizations < Self.maximumFinalizations:
            state = .awaitingReady(issue, attempt: 1)
            return ask(issue.url, .order, now: now)
        case .idle, .ordering, .reading, .presenting, .answering, .validating, .awaitingReady, .finalizing, .processing, .downloading,
            .alternates, .finished:
            return end(failure)
        }
    }

    private mutating func isOver(_ now: ACMEMoment) -> Action? {
        if case .finished = state { return fail(.order, .refused, "the order is over") }
        guard now.instant >= deadline else { return nil }
        return fail(.order, .unavailable, "not done within \(plan.timeLimit)")
    }

    enum State: Sendable {
        case idle
        case ordering(replaces: Bool)
        case reading(Issue, Int)
        case presenting(Issue, Int)
        case answering(Issue, Int)
        case validating(Issue, Int, attempt: Int)
        case awaitingReady(Issue, attempt: Int)
        case finalizing(Issue)
        case processing(Issue, attempt: Int)
        case downloading(Issue)
        /// The chain that is taken if none of the others is preferred.
        case alternates(Issue, first: [UInt8], rest: [ACMEURL])
        case finished
    }

    /// One order at the CA.
    struct Issue: Sendable {
        var url: ACMEURL
        var finalize: ACMEURL
        var authorizations: [ACMEURL]
        var tasks: [Task] = []
        var hasFailed = false
        /// The latest finalize was taken.
        var isFinalized = false
        var finalizations = 0
    }

    /// A name to be shown as ours.
    struct Task: Sendable {
        var authorization: ACMEURL
        var url: ACMEURL
        var offers: [ACMEChallengeObject]
        var challenge: ACMEChallenge
        var isAnswered: Bool
        /// The CA has said how it went.
        var isDecided = false
    }

    /// Questions about one authorization or order.
    static let maximumPolls = 60
    static let maximumAlternates = 8
    static let maximumFinalizations = 3
}
