import FoundationEssentials

/// The submission of one message: what is said next, given what the server answered. It does no I/O and knows no time.
///
///     greeting ─▶ EHLO ─┬─▶ STARTTLS ─▶ TLS ─▶ EHLO ─┐
///                       └────────────────────────────┴─▶ AUTH ─▶ MAIL ─▶ RCPT... ─▶ DATA ─▶ message ─▶ QUIT
///
/// It never pipelines: a byte that comes before it was asked for ends the session. AUTH goes through TLS, or to this machine. A
/// server without EHLO gets HELO where neither TLS nor AUTH is wanted. One accepted recipient is enough to send.
///
/// Source: RFC 5321 §3, §4; RFC 3207; RFC 4954; RFC 6152.
package struct SMTPSession: Sendable {
    package struct Plan: Sendable {
        /// A domain, or an address in brackets.
        package var clientName: String
        package var message: MailMessage
        /// Begins with STARTTLS; what is not encrypted from the start has it false.
        package var upgrades: Bool
        /// TLS from the first byte, or a server on this machine.
        package var isSafe: Bool
        package var credentials: Credentials?

        package init(clientName: String, message: MailMessage, upgrades: Bool, isSafe: Bool, credentials: Credentials? = nil) {
            self.clientName = clientName
            self.message = message
            self.upgrades = upgrades
            self.isSafe = isSafe
            self.credentials = credentials
        }
    }

    /// It has no description that shows them.
    package struct Credentials: Sendable, CustomStringConvertible, CustomReflectable {
        fileprivate let username: String
        fileprivate let password: String

        package init(username: String, password: String) {
            self.username = username
            self.password = password
        }

        package var description: String { "credentials" }
        package var customMirror: Mirror { Mirror(self, children: []) }
    }

    package enum Action: Equatable, Sendable {
        /// More has to come.
        case none
        case send([UInt8])
        /// Nothing is read before ``receiveTLS()``.
        case startTLS
        /// The message is the server's now; these recipients are not served. `goodbye` is sent, the connection closed.
        case done(refused: [MailAddress], goodbye: [UInt8])
        case failed(SMTPFault)
    }

    private enum State {
        case greeting
        case hello(isPlain: Bool)
        case startTLS
        case handshake
        case authPlain(isSent: Bool)
        case authLogin(asked: Int)
        case sender
        case recipient(index: Int, accepted: Int, refused: [MailAddress])
        case data(refused: [MailAddress])
        case message(refused: [MailAddress])
        case over
    }

    private let plan: Plan
    private var state = State.greeting
    private var parser = SMTPReplyParser()
    private var isEncrypted = false
    private var offers8Bit = false

    package init(_ plan: Plan) { self.plan = plan }

    package mutating func receive(_ bytes: some Sequence<UInt8>) -> Action {
        let bytes = Array(bytes)
        if case .over = state { return .none }
        if case .handshake = state { return fail(.unexpectedText) }
        do throws(SMTPFault) {
            guard let (reply, count) = try parser.receive(bytes[...]) else { return .none }
            guard count == bytes.count else { return fail(.unexpectedText) }
            return receive(withoutSecrets(reply))
        } catch {
            return fail(error)
        }
    }

    /// The handshake that ``Action/startTLS`` asked for is done. RFC 3207 §4.2: what was learned before is forgotten.
    package mutating func receiveTLS() -> Action {
        guard case .handshake = state else { return .none }
        (isEncrypted, parser) = (true, SMTPReplyParser())
        return hello()
    }

    private mutating func receive(_ reply: SMTPReply) -> Action {
        switch state {
        case .greeting: return reply.code == 220 ? hello() : fail(.refused(.greeting, reply))
        case .hello(let isPlain): return receiveHello(reply, isPlain: isPlain)
        case .startTLS:
            guard reply.code == 220 else { return fail(.refused(.startTLS, reply)) }
            state = .handshake
            return .startTLS
        case .handshake: return fail(.unexpectedText)
        case .authPlain(let isSent):
            switch (reply.code, plan.credentials) {
            case (235, _) where isSent: return sender()
            case (334, .some(let credentials)) where !isSent:
                state = .authPlain(isSent: true)
                return command(Self.plain(credentials))
            default: return fail(.refused(.authentication, reply))
            }
        case .authLogin(let asked):
            switch (reply.code, plan.credentials) {
            case (235, _) where asked == 2: return sender()
            case (334, .some(let credentials)) where asked < 2:
                state = .authLogin(asked: asked + 1)
                return command(Self.base64(asked == 0 ? credentials.username : credentials.password))
            default: return fail(.refused(.authentication, reply))
            }
        case .sender: return reply.code == 250 ? recipient(0, accepted: 0, refused: []) : fail(.refused(.sender, reply))
        case .recipient(let index, var accepted, var refused):
            switch reply.code {
            case 250, 251, 252: accepted += 1
            case 421: return fail(.refused(.recipient, reply))
            default: refused.append(plan.message.to[index])
            }
            if index + 1 < plan.message.to.count { return recipient(index + 1, accepted: accepted, refused: refused) }
            guard accepted > 0 else { return fail(.noRecipient(reply)) }
            state = .data(refused: refused)
            return command("DATA")
        case .data(let refused):
            guard reply.code == 354 else { return fail(.refused(.data, reply)) }
            state = .message(refused: refused)
            return .send(MailMessage.stuffed(plan.message.bytes(allows8Bit: offers8Bit)))
        case .message(let refused):
            guard reply.code == 250 else { return fail(.refused(.message, reply)) }
            state = .over
            return .done(refused: refused, goodbye: Array("QUIT\r\n".utf8))
        case .over: return .none
        }
    }

    private mutating func hello() -> Action {
        state = .hello(isPlain: false)
        return command("EHLO \(plan.clientName)")
    }

    private mutating func receiveHello(_ reply: SMTPReply, isPlain: Bool) -> Action {
        guard reply.code == 250 else {
            // RFC 5321 §3.2: an old server.
            guard !isPlain, [500, 502].contains(reply.code), !plan.upgrades, plan.credentials == nil else {
                return fail(.refused(.hello, reply))
            }
            state = .hello(isPlain: true)
            return command("HELO \(plan.clientName)")
        }
        // The first line is its name.
        let words = reply.lines.dropFirst().map { String(decoding: $0, as: UTF8.self).uppercased().split(separator: " ") }
        offers8Bit = !isPlain && words.contains { $0 == ["8BITMIME"] }
        if plan.upgrades, !isEncrypted {
            guard words.contains(where: { $0 == ["STARTTLS"] }) else { return fail(.noTLS) }
            state = .startTLS
            return command("STARTTLS")
        }
        guard let credentials = plan.credentials else { return sender() }
        guard isEncrypted || plan.isSafe else { return fail(.passwordInClear) }
        let mechanisms = words.first { $0.first == "AUTH" }?.dropFirst() ?? []
        if mechanisms.contains("PLAIN") {
            let line = "AUTH PLAIN \(Self.plain(credentials))"
            // RFC 4954 §4: what is longer than a command may be comes when it is asked for.
            let fits = line.utf8.count <= Self.longestCommand
            state = .authPlain(isSent: fits)
            return command(fits ? line : "AUTH PLAIN")
        }
        guard mechanisms.contains("LOGIN") else { return fail(.noAuthentication) }
        state = .authLogin(asked: 0)
        return command("AUTH LOGIN")
    }

    private mutating func sender() -> Action {
        state = .sender
        let is8Bit = offers8Bit && !plan.message.isASCII
        return command("MAIL FROM:<\(plan.message.from)>" + (is8Bit ? " BODY=8BITMIME" : ""))
    }

    private mutating func recipient(_ index: Int, accepted: Int, refused: [MailAddress]) -> Action {
        state = .recipient(index: index, accepted: accepted, refused: refused)
        return command("RCPT TO:<\(plan.message.to[index])>")
    }

    /// A server may repeat what it was told, and its words are logged.
    private func withoutSecrets(_ reply: SMTPReply) -> SMTPReply {
        guard let credentials = plan.credentials else { return reply }
        let text = reply.lines.map { String(decoding: $0, as: UTF8.self) }.joined()
        let secrets = [credentials.password, Self.base64(credentials.password), Self.plain(credentials)]
        return secrets.contains { text.contains($0) } ? SMTPReply(code: reply.code, lines: []) : reply
    }

    private mutating func fail(_ fault: SMTPFault) -> Action {
        state = .over
        return .failed(fault)
    }

    private func command(_ line: String) -> Action { .send(Array(line.utf8) + [0x0D, 0x0A]) }

    /// RFC 4616 §2.
    private static func plain(_ credentials: Credentials) -> String { base64("\0\(credentials.username)\0\(credentials.password)") }
    private static func base64(_ text: String) -> String { Data(text.utf8).base64EncodedString() }

    /// Bytes without CRLF, RFC 5321 §4.5.3.1.4.
    static let longestCommand = 510
}
