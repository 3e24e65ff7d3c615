import FoundationEssentials
import Proxy

/// A mail is submitted to a server that says the input. The first byte chooses TLS and user; answers are separated by bytes 0xFF,
/// each is what comes in one piece.
struct SMTPScript {
    private let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func run() {
        parse()
        guard let first = bytes.first, let session = Self.session(first) else { return }
        var (whole, isEncrypted) = (session, false)
        let isSafe = first & 2 != 0
        for answer in bytes.dropFirst().split(separator: 0xFF, omittingEmptySubsequences: false) {
            switch whole.receive(answer) {
            case .none: break
            case .send(let command): check(command, isSafe: isSafe || isEncrypted)
            case .startTLS:
                precondition(!isEncrypted, "TLS in TLS")
                isEncrypted = true
                if case .send(let command) = whole.receiveTLS() { check(command, isSafe: true) }
            case .done(let refused, let goodbye):
                precondition(refused.count < 3 && goodbye == Array("QUIT\r\n".utf8), "an end that is none")
                return
            case .failed(let fault):
                precondition(
                    "\(fault)".utf8.allSatisfy { $0 >= 0x20 } && "\(fault)".utf8.count < 1_000, "a fault that is not fit for a log")
                // The input may guess a word that is not the password.
                if first & 20 == 4 { precondition(!"\(fault)".contains(Self.password), "the password is told") }
                return
            }
        }
    }

    /// The pieces do not matter.
    private func parse() {
        var (whole, single) = (SMTPReplyParser(), SMTPReplyParser())
        let expected = Result { () throws(SMTPFault) in try whole.receive(bytes[...])?.reply }
        var found = Result<SMTPReply?, SMTPFault>.success(nil)
        for index in bytes.indices {
            found = Result { () throws(SMTPFault) in try single.receive(bytes[index...index])?.reply }
            if case .success(nil) = found { continue }
            break
        }
        precondition(found == expected, "cut otherwise, it is another reply")
        if case .success(.some(let reply)) = found {
            precondition((200...599).contains(reply.code) && (1...SMTPReplyParser.maximumLines).contains(reply.lines.count))
            precondition(reply.text.utf8.allSatisfy { $0 >= 0x20 }, "a text that is not fit for a log")
        }
    }

    private func check(_ command: [UInt8], isSafe: Bool) {
        let text = String(decoding: command, as: UTF8.self)
        precondition(text.hasSuffix("\r\n"), "a command without end")
        precondition(isSafe || !text.hasPrefix("AUTH"), "a password in clear")
        if !text.hasPrefix("From: ") { precondition(command.dropLast(2).allSatisfy { $0 >= 0x20 }, "two commands in one") }
    }

    private static func session(_ choice: UInt8) -> SMTPSession? {
        guard let from = MailAddress("me@b.c"), let to = MailAddress("you@b.c"), let other = MailAddress("they@b.c") else { return nil }
        let text = choice & 8 == 0 ? "Hello\n.\n" : "Hellö\n.\n"
        let message = MailMessage(
            from: from, to: [to, other], subject: "s", text: text, date: Date(timeIntervalSince1970: 1_800_000_000), id: "1")
        let long = choice & 16 != 0
        return SMTPSession(
            .init(
                clientName: "me.example", message: message, upgrades: choice & 1 != 0, isSafe: choice & 2 != 0,
                credentials: choice & 4 == 0
                    ? nil : .init(username: "user", password: long ? String(repeating: password, count: 50) : password)))
    }

    private static let password = "hunter22"
}
