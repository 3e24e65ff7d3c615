import FoundationEssentials

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A way to tell somebody. One call is one attempt.
package protocol AlertChannel: Sendable {
    var kind: AlertChannelKind { get }
    func send(_ notice: AlertNotice) async -> Result<AlertReceipt, AlertFault>
    /// Before the last reference goes.
    func shutdown() async
}

extension AlertChannel {
    package func shutdown() async {}
}

package enum AlertChannelKind: String, CaseIterable, Sendable { case webhook, exec, mail }

/// An alert that was sent.
package struct AlertReceipt: Sendable, Equatable {
    /// Who did not get it all the same.
    package var refused: [String]
    /// What a program wrote, escaped and cut.
    package var output: String

    package init(refused: [String] = [], output: String = "") {
        self.refused = refused
        self.output = output
    }
}

/// Why an alert was not sent. The text is short, fit for a log, and holds no secret.
package struct AlertFault: Error, Equatable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = LogText.escape(reason, limit: Self.limit) }
    package var description: String { reason }

    /// With all that is kept of a program's output.
    static let limit = 500 + HookProcess.maximumOutput
}

/// An alert on its way: the same for every channel and every attempt.
package struct AlertNotice: Sendable, Equatable {
    package var alert: CertificateAlert
    /// The machine that tells.
    package var host: String
    package var time: Date
    /// Random; receivers can tell a repetition by it.
    package var id: String

    package init(_ alert: CertificateAlert, host: String = AlertNotice.hostName, time: Date, id: String = AlertNotice.newID()) {
        self.alert = alert
        self.host = host
        self.time = time
        self.id = id
    }

    /// What the webhook is sent and the program reads: documented in docs/operations.md.
    package var json: [UInt8] {
        let document = Document(
            event: alert.event.rawValue, name: alert.name, level: alert.level?.text, notAfter: alert.notAfter?.formatted(.iso8601),
            remainingSeconds: remainingSeconds, message: alert.message, lastFailure: alert.lastFailure, host: host, id: id,
            time: time.formatted(.iso8601))
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Strings and an integer: there is nothing in it that cannot be encoded.
        return (try? encoder.encode(document)).map { Array($0) } ?? []
    }

    var remainingSeconds: Int? { alert.remaining.flatMap { Int(exactly: $0.rounded(.down)) } }

    /// Members without a value are null.
    private struct Document: Encodable {
        var event, name: String
        var level, notAfter: String?
        var remainingSeconds: Int?
        var message: String
        var lastFailure: String?
        var host, id, time: String

        enum CodingKeys: CodingKey { case event, name, level, notAfter, remainingSeconds, message, lastFailure, host, id, time }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(event, forKey: .event)
            try container.encode(name, forKey: .name)
            try container.encode(level, forKey: .level)
            try container.encode(notAfter, forKey: .notAfter)
            try container.encode(remainingSeconds, forKey: .remainingSeconds)
            try container.encode(message, forKey: .message)
            try container.encode(lastFailure, forKey: .lastFailure)
            try container.encode(host, forKey: .host)
            try container.encode(id, forKey: .id)
            try container.encode(time, forKey: .time)
        }
    }

    package static func newID() -> String {
        String(UInt64.random(in: .min ... .max), radix: 16) + String(UInt64.random(in: .min ... .max), radix: 16)
    }

    /// Of this machine.
    package static var hostName: String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "localhost" }
        let name = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return name.isEmpty ? "localhost" : LogText.escape(name, limit: 255)
    }
}
