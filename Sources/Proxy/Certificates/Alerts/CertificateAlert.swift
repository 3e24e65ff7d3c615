import FoundationEssentials

/// One thing about a certificate that somebody has to hear of.
package struct CertificateAlert: Codable, Equatable, Sendable {
    package enum Event: String, Codable, CaseIterable, Sendable {
        /// A quarter, an eighth or a twenty-fourth of the lifetime is left.
        case expiring
        case expired
        case renewalOverdue = "renewal-overdue"
        /// No certificate for an hour.
        case missing
        case recovered
        /// Asked for by the operator.
        case test
    }

    /// What of the lifetime is left at most, the most urgent last.
    package enum Level: Int, Codable, CaseIterable, Comparable, Sendable {
        case quarter, eighth, twentyFourth, expired

        package static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }

        /// As receivers see it.
        package var text: String {
            switch self {
            case .quarter: "1/4"
            case .eighth: "1/8"
            case .twentyFourth: "1/24"
            case .expired: "expired"
            }
        }
    }

    package var event: Event
    /// A domain or a file.
    package var name: String
    package var level: Level?
    /// Of the certificate that it is about; of the new one where the event is `recovered`.
    package var notAfter: Date?
    /// Seconds until then, negative behind it.
    package var remaining: TimeInterval?
    package var isOverdue: Bool
    /// Why the last renewal failed. Escaped and cut.
    package var lastFailure: String?

    package init(
        _ event: Event, name: String, level: Level? = nil, notAfter: Date? = nil, remaining: TimeInterval? = nil, isOverdue: Bool = false,
        lastFailure: String? = nil
    ) {
        self.event = event
        self.name = LogText.escape(name, limit: Self.longestName)
        self.level = level
        self.notAfter = notAfter
        self.remaining = remaining
        self.isOverdue = isOverdue
        self.lastFailure = lastFailure.map { LogText.escape($0, limit: Self.longestFailure) }
    }

    /// One line for people, without the failure.
    package var message: String {
        switch event {
        case .expiring: "Certificate of \(name) expires in \(span)" + (isOverdue ? ", and its renewal is overdue" : "")
        case .expired: "Certificate of \(name) has expired"
        case .renewalOverdue: "Renewal of the certificate of \(name) is overdue; it expires in \(span)"
        case .missing: "Certificate not found \(name)"
        case .recovered: "Certificate of \(name) is good again" + (remaining == nil ? "" : " for \(span)")
        case .test: "Test of the alerts: nothing has happened"
        }
    }

    /// Whether somebody is waited for now.
    package var isUrgent: Bool {
        switch event {
        case .expired, .missing: true
        case .expiring: level == .twentyFourth
        case .renewalOverdue, .recovered, .test: false
        }
    }

    /// Whether it must not be lost, however long a channel is out of order.
    var isPersistent: Bool { isUrgent || event == .renewalOverdue }

    private var span: String { Status.span(Int(exactly: (remaining ?? 0).rounded(.down)) ?? .max) }

    static let longestName = 300
    static let longestFailure = 400
}
