import FoundationEssentials
import Logging

/// What has to outlive a restart: when each name is due, which limits apply, and under which URL each CA knows the account.
package struct IssuanceRecord: Codable, Equatable, Sendable {
    package struct Name: Codable, Equatable, Sendable {
        package var schedule = RenewalSchedule()
        /// The directory that the certificate came from; nil for one that was found or imported.
        package var directory: String?
        /// Directories that have said when they may be asked again.
        package var blocked: [String: Date] = [:]
        /// When its route went.
        package var gone: Date?

        package init() {}
    }

    package struct Account: Codable, Equatable, Sendable {
        package var url: String
        /// Of the key that it was made with, RFC 7638.
        package var thumbprint: String

        package init(url: String, thumbprint: String) {
            self.url = url
            self.thumbprint = thumbprint
        }
    }

    package var names: [String: Name] = [:]
    package var budgets: [String: ValidationBudget] = [:]
    package var accounts: [String: Account] = [:]

    package init() {}

    /// Names whose routes went so long ago that no limit counts them any more.
    mutating func forget(before now: Date) {
        names = names.filter { $0.value.gone.map { $0 > now - Self.memory } ?? true }
    }

    /// Equal certificates count for seven days.
    private static let memory: TimeInterval = 8 * 86_400
}

/// The record's file. Blocking.
struct IssuanceFile: Sendable {
    let path: String
    let logger: Logger

    /// One that cannot be read is put aside: nothing in it is worth a gateway that does not start.
    func load(now: Date) -> IssuanceRecord {
        do throws(CertificateFileError) {
            guard let content = try StateFile.read(path, limit: Self.maximumSize) else { return IssuanceRecord() }
            if let record = try? JSONDecoder().decode(IssuanceRecord.self, from: Data(content.bytes)) { return record }
            let aside = path + ".damaged-\(Int(now.timeIntervalSince1970))"
            try StateFile.move(path, to: aside)
            logger.warning(
                "The record of certificates cannot be used and was put aside; limits of the CA are not known",
                metadata: ["file": "\(LogText.escape(path))", "now": "\(LogText.escape(aside))"])
        } catch {
            // Not to be written over: it may be read another time.
            try? StateFile.move(path, to: path + ".unread-\(Int(now.timeIntervalSince1970))")
            logger.error("The record of certificates cannot be read and was put aside", metadata: ["error": "\(error)"])
        }
        return IssuanceRecord()
    }

    func save(_ record: IssuanceRecord) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        try StateFile.write(String(decoding: try encoder.encode(record), as: UTF8.self), to: path, mode: 0o600)
    }

    /// 10,000 names and more.
    private static let maximumSize = 64 << 20
}
