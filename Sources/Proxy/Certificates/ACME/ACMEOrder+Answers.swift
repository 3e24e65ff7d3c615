import Inet

/// What the CA answered, by state.
extension ACMEOrder {
    mutating func receiveAnswer(_ response: ACMEResponse, now: ACMEMoment) -> Action {
        do {
            switch state {
            case .ordering: return try receiveOrder(response, now: now)
            case .reading(let issue, let index): return try receiveAuthorization(response, issue, index, now: now)
            case .answering(var issue, let index):
                _ = try ACMEChallengeObject.read(response.body)
                issue.tasks[index].isAnswered = true
                return answer(issue, from: index + 1, now: now)
            case .validating(let issue, let index, let attempt):
                return try receiveValidation(response, issue, index, attempt: attempt, now: now)
            case .awaitingReady(let issue, let attempt), .processing(let issue, let attempt):
                return try receiveOrderState(response, issue, attempt: attempt, now: now)
            case .finalizing(var issue):
                issue.isFinalized = true
                return try receiveOrderState(response, issue, attempt: 0, now: now)
            case .downloading(let issue): return receiveChain(response, issue, now: now)
            case .alternates(let issue, let first, let rest):
                return chooseChain(issue, first: first, candidate: response.body, rest: rest, now: now)
            case .idle, .presenting, .finished: return fail(.order, .refused, "an answer to no request")
            }
        } catch {
            return fail(stage, .refused, "the CA's answer is not understood: \(error.reason)")
        }
    }

    /// RFC 8555 §7.4: the URL of the order is in `Location`, here and nowhere else. It may be ready already.
    private mutating func receiveOrder(_ response: ACMEResponse, now: ACMEMoment) throws(ACMEFault) -> Action {
        let order = try ACMEOrderObject.read(response.body)
        guard let location = response.field("Location"), let origin = session.directory?.newOrder else { throw ACMEFault("no Location") }
        let issue = Issue(url: try origin.resolving(location), finalize: order.finalize, authorizations: order.authorizations)
        switch order.status {
        case .pending: return readAuthorization(issue, from: 0, now: now)
        case .ready: return finalize(issue, now: now)
        case .invalid: return fail(.order, .refused, "the new order is invalid", order.error)
        // Its certificate would be for another key.
        case .processing, .valid: return fail(.order, .refused, "the new order is \(order.status.rawValue) already")
        }
    }

    private mutating func readAuthorization(_ issue: Issue, from index: Int, now: ACMEMoment) -> Action {
        guard index < issue.authorizations.count else { return present(issue, from: 0, now: now) }
        state = .reading(issue, index)
        return ask(issue.authorizations[index], .authorization, now: now)
    }

    /// RFC 8555 §7.5: valid ones need nothing.
    private mutating func receiveAuthorization(
        _ response: ACMEResponse, _ issue: Issue, _ index: Int, now: ACMEMoment
    ) throws(ACMEFault) -> Action {
        var issue = issue
        let authorization = try ACMEAuthorization.read(response.body)
        guard authorization.identifier.type == "dns", let name = DomainPattern(authorization.name), plan.names.contains(name) else {
            throw ACMEFault("an authorization for \(authorization.name), which was not ordered")
        }
        switch authorization.status {
        case .valid: break
        case .pending:
            switch makeTask(issue.authorizations[index], for: name, offers: authorization.challenges) {
            case .success(let task): issue.tasks.append(task)
            case .failure(let failure): return end(failure)
            }
        case .invalid, .deactivated, .expired, .revoked:
            let problem = authorization.challenges.lazy.compactMap(\.error).first
            return fail(
                .authorization, .refused, "the authorization of \(name) is \(authorization.status.rawValue) from the start", problem)
        }
        return readAuthorization(issue, from: index + 1, now: now)
    }

    /// RFC 8555 §7.5.1. All of them are waited for, so that each failure is counted.
    private mutating func receiveValidation(
        _ response: ACMEResponse, _ issue: Issue, _ index: Int, attempt: Int, now: ACMEMoment
    ) throws(ACMEFault) -> Action {
        var issue = issue
        let task = issue.tasks[index]
        let authorization = try ACMEAuthorization.read(response.body)
        switch authorization.status {
        case .pending:
            state = .validating(issue, index, attempt: attempt + 1)
            return poll(response, attempt: attempt, .authorization, now: now)
        case .valid: issue.tasks[index].isDecided = true
        case .invalid, .deactivated, .expired, .revoked:
            issue.tasks[index].isDecided = true
            let challenge = authorization.challenges.first { $0.url == task.url }
            recordFailure(of: task.challenge, challenge?.error ?? authorization.challenges.lazy.compactMap(\.error).first)
            issue.hasFailed = true
        }
        state = .validating(issue, index, attempt: attempt)
        return validate(issue, from: index + 1, now: now)
    }

    /// RFC 8555 §7.1.6: pending, ready, processing, valid.
    private mutating func receiveOrderState(
        _ response: ACMEResponse, _ issue: Issue, attempt: Int, now: ACMEMoment
    ) throws(ACMEFault) -> Action {
        let order = try ACMEOrderObject.read(response.body)
        switch order.status {
        case .ready where !issue.isFinalized: return finalize(issue, now: now)
        case .pending where !issue.isFinalized:
            state = .awaitingReady(issue, attempt: attempt + 1)
            return poll(response, attempt: attempt, .order, now: now)
        case .pending, .ready, .processing:
            state = .processing(issue, attempt: attempt + 1)
            return poll(response, attempt: attempt, .processing, now: now)
        case .valid:
            guard let certificate = order.certificate else { throw ACMEFault("a valid order without a certificate") }
            state = .downloading(issue)
            return begin(.read(certificate, accept: ACMERequest.chainType), .certificate, now: now)
        case .invalid: return fail(stage, .refused, "the order is invalid", order.error)
        }
    }

    /// RFC 8555 §7.4.
    private mutating func finalize(_ issue: Issue, now: ACMEMoment) -> Action {
        var issue = issue
        issue.finalizations += 1
        state = .finalizing(issue)
        do {
            let request = try CertificateRequest.der(names: plan.names, key: plan.key)
            return begin(
                .post(issue.finalize, payload: Array(#"{"csr":"\#(Base64URL.encode(request))"}"#.utf8)), .finalize, now: now)
        } catch {
            return fail(.finalize, .refused, error.reason)
        }
    }

    /// RFC 8555 §7.4.2: other chains for the same certificate are linked.
    private mutating func receiveChain(_ response: ACMEResponse, _ issue: Issue, now: ACMEMoment) -> Action {
        guard plan.preferredIssuer != nil else { return install(response.body, issue, now: now) }
        let rest = response.links("alternate").prefix(Self.maximumAlternates).compactMap { try? issue.url.resolving($0) }
        return chooseChain(issue, first: response.body, candidate: response.body, rest: rest, now: now)
    }

    private mutating func chooseChain(
        _ issue: Issue, first: [UInt8], candidate: [UInt8], rest: [ACMEURL], now: ACMEMoment
    ) -> Action {
        if ACMECertificate.topIssuer(of: candidate) == plan.preferredIssuer { return install(candidate, issue, now: now) }
        guard let next = rest.first else { return install(first, issue, now: now) }
        state = .alternates(issue, first: first, rest: Array(rest.dropFirst()))
        return begin(.read(next, accept: ACMERequest.chainType), .certificate, now: now)
    }

    mutating func install(_ chain: [UInt8], _ issue: Issue, now: ACMEMoment) -> Action {
        do {
            let certificate = try ACMECertificate(pem: chain, key: plan.key, names: plan.names, now: now.date)
            state = .finished
            return .done(certificate)
        } catch {
            return fail(.verification, .refused, error.reason)
        }
    }

    private var stage: ACMEStage {
        switch state {
        case .idle, .ordering, .awaitingReady, .finished: .order
        case .reading, .validating: .authorization
        case .presenting, .answering: .challenge
        case .finalizing: .finalize
        case .processing: .processing
        case .downloading, .alternates: .certificate
        }
    }
}
