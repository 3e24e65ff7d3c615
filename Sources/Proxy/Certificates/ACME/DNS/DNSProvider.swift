/// Who can change a zone. Two values may stand at one name, for `example.com` and `*.example.com` are shown there: one is added
/// and removed without regard to the other.
package protocol DNSProvider: Sendable {
    /// Its name in the configuration.
    var label: String { get }
    /// Adding what is there already is no error.
    func add(_ record: TXTRecord) async throws
    /// Removing what is not there is no error.
    func remove(_ record: TXTRecord) async throws
}

/// A TXT record of one string.
package struct TXTRecord: Hashable, Sendable {
    /// Absolute, without a final dot, lower case.
    package let name: String
    package let value: String

    package init(name: String, value: String) {
        let name = name.lowercased()
        self.name = name.hasSuffix(".") ? String(name.dropLast()) : name
        self.value = value
    }

    /// The name and those above it, the longest first, down to two labels.
    var candidateZones: [String] {
        let labels = name.split(separator: ".")
        return labels.indices.dropLast().map { labels[$0...].joined(separator: ".") }.suffix(Self.maximumCandidates)
    }

    /// Seconds. Short, for it stands for minutes only.
    package static let timeToLive: UInt32 = 60
    private static let maximumCandidates = 12
}

/// Why a record could not be changed or found. The text is for the operator: short, escaped, without any secret.
package struct DNSFault: Error, Equatable, CustomStringConvertible {
    package let reason: String
    /// The provider has no zone for the name.
    package let isZoneMissing: Bool

    /// - Parameter reason: may quote a server; it is escaped and cut here.
    package init(_ reason: String, isZoneMissing: Bool = false) {
        self.reason = LogText.escape(reason, limit: Self.limit)
        self.isZoneMissing = isZoneMissing
    }
    package var description: String { reason }

    package static let limit = 600
}
