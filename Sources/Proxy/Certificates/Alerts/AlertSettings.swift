import Inet

/// What `[alerts]` says. Secrets are not in it but for the webhook's URL, whose path is never shown.
package struct AlertSettings: Sendable, Equatable {
    package struct Webhook: Sendable, Equatable {
        package enum Format: String, CaseIterable, Sendable { case json, slack }

        package var url: WebhookURL
        package var format: Format
        /// Holds the bearer token; read for each alert.
        package var tokenFile: String?

        package init(url: WebhookURL, format: Format = .json, tokenFile: String? = nil) {
            self.url = url
            self.format = format
            self.tokenFile = tokenFile
        }
    }

    package struct Mail: Sendable, Equatable {
        package enum Security: String, CaseIterable, Sendable {
            case startTLS = "starttls"
            case tls
            /// To this machine only.
            case none
        }

        package var from: MailAddress
        package var to: [MailAddress]
        package var server: MailServer
        package var security: Security
        package var username: String?
        /// Read for each alert.
        package var passwordFile: String?

        package init(
            from: MailAddress, to: [MailAddress], server: MailServer, security: Security = .startTLS, username: String? = nil,
            passwordFile: String? = nil
        ) {
            self.from = from
            self.to = to
            self.server = server
            self.security = security
            self.username = username
            self.passwordFile = passwordFile
        }
    }

    package var webhook: Webhook?
    /// The absolute path of a program.
    package var exec: String?
    package var mail: Mail?

    package init(webhook: Webhook? = nil, exec: String? = nil, mail: Mail? = nil) {
        self.webhook = webhook
        self.exec = exec
        self.mail = mail
    }

    package var isEmpty: Bool { webhook == nil && exec == nil && mail == nil }
}

/// Where a webhook is. Whoever knows a Slack URL may write to its channel: the description is scheme and host.
package struct WebhookURL: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    private let url: ACMEURL

    /// `https`, or `http` to this machine. Nil for anything else.
    package init?(_ text: String) {
        guard let url = try? ACMEURL(text) else { return nil }
        self.url = url
    }

    /// All of it, for the request and nothing else.
    var secretText: String { url.text }

    /// With the port if there is one.
    package var host: String {
        guard let colon = url.text.firstIndex(of: ":") else { return "" }
        return String(url.text[colon...].dropFirst(3).prefix { $0 != "/" && $0 != "?" })
    }

    /// Whatever an error says of the request, the path is not told.
    package func hidingPath(in description: String) -> String { url.hidingPath(in: description) }

    package var description: String { "\(url.text.prefix { $0 != ":" })://\(host)/…" }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// `host:port`.
package struct MailServer: Sendable, Equatable, CustomStringConvertible {
    /// A name or an address, without brackets.
    package let host: String
    package let port: Int

    package init?(_ text: String) {
        guard text.utf8.count <= 300, let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[colon...].dropFirst()
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = UInt16(digits), port > 0 else {
            return nil
        }
        let host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            guard let address = IPAddress(String(host.dropFirst().dropLast())), address.family == .v6 else { return nil }
            self.host = String(host.dropFirst().dropLast())
        } else {
            guard IPAddress(String(host)) != nil || MailAddress.isDomain(host) else { return nil }
            self.host = String(host)
        }
        self.port = Int(port)
    }

    /// An address of this machine, or the name that everybody has for it.
    package var isLoopback: Bool { host.lowercased() == "localhost" || IPAddress(host)?.isLoopback == true }

    package var description: String { host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
