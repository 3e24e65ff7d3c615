/// What a mail server answers: a code and lines of text.
///
///     250-mail.example.com
///     250-STARTTLS
///     250 8BITMIME
///
/// Source: RFC 5321 §4.2.
package struct SMTPReply: Sendable, Equatable {
    package var code: Int
    /// Without code and line end, as bytes: it is hostile.
    package var lines: [[UInt8]]

    package init(code: Int, lines: [[UInt8]]) {
        self.code = code
        self.lines = lines
    }

    /// For a log: escaped and cut.
    package var text: String {
        let words = lines.prefix(3).map { String(decoding: $0.prefix(200), as: UTF8.self) }.joined(separator: " ")
        return LogText.escape("\(code) \(words)", limit: 200)
    }
}

/// Puts replies together from pieces. What it holds is bounded; after a fault it takes nothing more.
package struct SMTPReplyParser: Sendable {
    private enum State {
        /// A line that has begun, and the lines of the same reply before it.
        case reading(line: [UInt8], reply: SMTPReply?)
        case dead(SMTPFault)
    }

    private var state = State.reading(line: [], reply: nil)

    package init() {}

    /// Whether nothing of a reply has come yet.
    package var isEmpty: Bool {
        switch state {
        case .reading(let line, let reply): line.isEmpty && reply == nil
        case .dead: false
        }
    }

    /// Takes bytes up to the end of one reply.
    /// - Returns: the reply and how many bytes it took, or nil if more must come.
    package mutating func receive(_ bytes: ArraySlice<UInt8>) throws(SMTPFault) -> (reply: SMTPReply, count: Int)? {
        guard case .reading(var line, var reply) = state else {
            if case .dead(let fault) = state { throw fault }
            return nil
        }
        state = .reading(line: [], reply: nil)
        do throws(SMTPFault) {
            for index in bytes.indices {
                guard bytes[index] == 0x0A else {
                    guard line.count < Self.longestLine else { throw .longLine }
                    line.append(bytes[index])
                    continue
                }
                if try Self.take(&line, into: &reply), let whole = reply {
                    return (whole, index - bytes.startIndex + 1)
                }
            }
        } catch {
            state = .dead(error)
            throw error
        }
        state = .reading(line: line, reply: reply)
        return nil
    }

    /// - Returns: whether it was the last line.
    private static func take(_ line: inout [UInt8], into reply: inout SMTPReply?) throws(SMTPFault) -> Bool {
        // A bare LF is no line end, RFC 5321 §2.3.8.
        guard line.popLast() == 0x0D, line.count >= 3, line.prefix(3).allSatisfy({ (0x30...0x39).contains($0) }) else { throw .notAReply }
        let code = line.prefix(3).reduce(0) { $0 * 10 + Int($1 - 0x30) }
        let mark = line.count > 3 ? line[3] : UInt8(ascii: " ")
        guard (200...599).contains(code), mark == UInt8(ascii: " ") || mark == UInt8(ascii: "-"), reply.map({ $0.code == code }) ?? true
        else {
            throw .notAReply
        }
        guard (reply?.lines.count ?? 0) < maximumLines else { throw .manyLines }
        if reply == nil { reply = SMTPReply(code: code, lines: []) }
        reply?.lines.append(Array(line.dropFirst(4)))
        line = []
        return mark == UInt8(ascii: " ")
    }

    /// Bytes with CR; RFC 5321 §4.5.3.1.5 has 512 with CRLF.
    package static let longestLine = 1_024
    package static let maximumLines = 64
}

/// How a mail was not sent.
package enum SMTPFault: Error, Equatable, Sendable, CustomStringConvertible {
    case notAReply, longLine, manyLines
    /// The server speaks before it is asked: behind STARTTLS that would be text of somebody in between.
    case unexpectedText
    case refused(SMTPStage, SMTPReply)
    /// Every recipient; the last answer.
    case noRecipient(SMTPReply)
    case noTLS
    case noAuthentication
    /// A password is not sent where others could read it.
    case passwordInClear

    package var description: String {
        switch self {
        case .notAReply: "the server's answer is not one of SMTP"
        case .longLine: "the server sent a line of more than \(SMTPReplyParser.longestLine) bytes"
        case .manyLines: "the server's answer has more than \(SMTPReplyParser.maximumLines) lines"
        case .unexpectedText: "the server spoke before it was asked"
        // What a server says at authentication could repeat what it was sent.
        case .refused(.authentication, let reply): "the server refused user name and password: \(reply.code)"
        case .refused(let stage, let reply): "the server refused \(stage.rawValue): \(reply.text)"
        case .noRecipient(let reply): "the server refused every recipient: \(reply.text)"
        case .noTLS: "the server offers no STARTTLS"
        case .noAuthentication: "the server offers neither AUTH PLAIN nor AUTH LOGIN"
        case .passwordInClear: "a password is not sent without TLS"
        }
    }
}

package enum SMTPStage: String, Sendable {
    case greeting
    case hello = "EHLO"
    case startTLS = "STARTTLS"
    case authentication = "AUTH"
    case sender = "MAIL"
    case recipient = "RCPT"
    case data = "DATA"
    case message = "the message"
}
