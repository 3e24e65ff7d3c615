import FoundationEssentials

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A message of plain text. Its lines have CRLF and are short enough for every server; dots are stuffed when it is sent.
///
/// Source: RFC 5322 §2, §3.6; RFC 2045; RFC 2047; RFC 3834 §5.
package struct MailMessage: Sendable, Equatable {
    package var from: MailAddress
    package var to: [MailAddress]
    package var subject: String
    /// Lines end with LF.
    package var text: String
    package var date: Date
    package var id: String

    package init(from: MailAddress, to: [MailAddress], subject: String, text: String, date: Date, id: String) {
        self.from = from
        self.to = to
        self.subject = subject
        self.text = text
        self.date = date
        self.id = id
    }

    package init(_ notice: AlertNotice, from: MailAddress, to: [MailAddress]) {
        let alert = notice.alert
        var lines = [alert.message + ".", ""]
        if let end = alert.notAfter { lines.append("Ends: \(end.formatted(.iso8601))") }
        if let failure = alert.lastFailure { lines.append("Last failure: \(failure)") }
        lines += ["Event: \(alert.event.rawValue)", "Certificate: \(alert.name)", "Host: \(notice.host)"]
        self.init(
            from: from, to: to, subject: "[\(notice.host)] \(alert.message)", text: lines.joined(separator: "\n") + "\n", date: notice.time,
            id: notice.id)
    }

    package var isASCII: Bool { text.utf8.allSatisfy { $0 < 0x80 } }

    /// Header and body with CRLF at the end of each line.
    /// - Parameter allows8Bit: the server said 8BITMIME. Without, text beyond ASCII goes as base64.
    package func bytes(allows8Bit: Bool) -> [UInt8] {
        let encoding = isASCII ? "7bit" : allows8Bit ? "8bit" : "base64"
        var lines = [
            "From: kakuremichi <\(from)>", "To: " + to.map(\.text).joined(separator: ",\r\n "), "Subject: \(Self.encodedSubject(subject))",
            "Date: \(Self.date(date))", "Message-ID: <\(Self.token(id))@\(from.domain)>", "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: \(encoding)", "Auto-Submitted: auto-generated", "",
        ]
        let body = text.split(separator: "\n", omittingEmptySubsequences: false).flatMap {
            Self.cut(Self.printable($0), to: Self.longestLine)
        }
        lines += encoding == "base64" ? Self.base64Lines(body.joined(separator: "\r\n")) : body
        return Array(lines.joined(separator: "\r\n").utf8) + (lines.last == "" ? [] : [0x0D, 0x0A])
    }

    /// RFC 2047 §5: encoded words of at most 75 characters where there is anything beyond ASCII, or what looks like one.
    package static func encodedSubject(_ subject: String) -> String {
        let text = LogText.escape(subject, limit: longestSubject)
        if text.utf8.allSatisfy({ $0 < 0x80 }), !text.contains("=?") { return text }
        return cut(text, to: 45).map { "=?UTF-8?B?\(Data($0.utf8).base64EncodedString())?=" }.joined(separator: "\r\n ")
    }

    /// `Thu, 26 Nov 2026 11:32:00 +0000`
    package static func date(_ date: Date) -> String {
        var seconds = time_t(exactly: date.timeIntervalSince1970.rounded(.down)) ?? 0
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ number: CInt) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let day = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][Int(parts.tm_wday) % 7]
        let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][Int(parts.tm_mon) % 12]
        let time = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
        return "\(day), \(two(parts.tm_mday)) \(month) \(Int(parts.tm_year) + 1900) \(time) +0000"
    }

    /// RFC 5321 §4.5.2: a dot before the dot that begins a line, and the line with the dot that ends it all.
    package static func stuffed(_ message: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(message.count + 64)
        var isLineStart = true
        for byte in message {
            if isLineStart, byte == UInt8(ascii: ".") { result.append(byte) }
            result.append(byte)
            isLineStart = byte == 0x0A
        }
        return result + (isLineStart ? "" : "\r\n").utf8 + ".\r\n".utf8
    }

    /// Control characters, CR among them, do not get into a message.
    private static func printable(_ line: Substring) -> String {
        line.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F } ? String(line) : LogText.escape(String(line), limit: .max)
    }

    /// Pieces of whole scalars, at least one.
    private static func cut(_ text: String, to limit: Int) -> [String] {
        if text.utf8.count <= limit { return [text] }
        var pieces: [String] = []
        var piece = ""
        for scalar in text.unicodeScalars {
            if piece.utf8.count + UTF8.width(scalar) > limit {
                pieces.append(piece)
                piece = ""
            }
            piece.unicodeScalars.append(scalar)
        }
        return pieces + [piece]
    }

    private static func base64Lines(_ text: String) -> [String] { cut(Data(text.utf8).base64EncodedString(), to: 76) }

    private static func token(_ id: String) -> String {
        String(
            decoding: id.utf8.filter { (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) },
            as: UTF8.self)
    }

    package static let maximumRecipients = 20
    static let longestSubject = 400
    /// RFC 5322 §2.1.1 has 998 without CRLF.
    static let longestLine = 900
}
