import FoundationEssentials

/// Why something from a CA is not taken. The text is short and fit for a log.
package struct ACMEFault: Error, Equatable, CustomStringConvertible {
    package let reason: String
    /// - Parameter reason: may quote the CA; it is escaped and cut here.
    package init(_ reason: String) { self.reason = LogText.escape(reason, limit: Self.limit) }
    package var description: String { reason }

    package static let limit = 300
}

/// Where in an issuance something happened.
package enum ACMEStage: String, Codable, Sendable {
    case directory, nonce, account, order, authorization, challenge, finalize, processing, certificate, verification
    case renewalInfo, keyChange, revocation
}

/// How an issuance, or another request to a CA, ended in vain.
package struct ACMEFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// What the one who tries again has to know.
    package enum Kind: String, Codable, Sendable {
        /// The CA was not reached, or has a fault of its own: nothing was counted against us.
        case unavailable
        /// `rateLimited`: `retryAfter` is obeyed.
        case rateLimited
        /// A validation failed: it counts against the name.
        case validation
        /// The CA said no, or something that makes no sense.
        case refused
    }

    package var stage: ACMEStage
    package var kind: Kind
    /// Escaped and cut.
    package var reason: String
    package var problem: ACMEProblem?
    /// Not before this moment, if the CA named one.
    package var retryAfter: Date?

    package init(_ stage: ACMEStage, _ kind: Kind, _ reason: String, problem: ACMEProblem? = nil, retryAfter: Date? = nil) {
        self.stage = stage
        self.kind = kind
        self.reason = LogText.escape(reason)
        self.problem = problem
        self.retryAfter = retryAfter
    }

    package var description: String {
        var text = "ACME, \(stage.rawValue): \(reason)"
        if let problem { text += ": \(problem)" }
        return LogText.escape(text)
    }
}
