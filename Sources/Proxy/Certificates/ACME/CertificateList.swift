/// Every certificate of a gateway, as `kakuremichi certs list` and `status` show it.
package struct CertificateList: Codable, Sendable, Equatable {
    package struct Entry: Codable, Sendable, Equatable {
        package enum State: String, Codable, CaseIterable, Sendable {
            /// Served, and not due yet.
            case valid
            /// Served; its successor is being ordered or was tried in vain.
            case renewing
            case expired
            /// Not there: being ordered.
            case pending
            /// Not there: the last attempt failed, the next one is later.
            case failed
            /// Not there, and nothing will be done: see `reason`.
            case blocked
            /// From a configured file, which its owner renews.
            case file
        }

        package var name: String
        package var state: State
        package var names: [String] = []
        package var issuer: String?
        /// Seconds since 1970, like every time here.
        package var notBefore: Int?
        package var notAfter: Int?
        /// When the next order or renewal is due.
        package var due: Int?
        package var failures = 0
        package var reason: String?
        package var file: String?
        /// Renewal is late by a tenth of the lifetime.
        package var isOverdue = false
    }

    package var now: Int
    package var directories: [String]
    package var certificates: [Entry]
}

extension CertificateList {
    package var table: String {
        guard !certificates.isEmpty else {
            guard directories.isEmpty else { return "no certificates: there is no route yet\n" }
            return """
                no certificates: ACME is off, and no file is configured. The internal CA signs for each route, for development:
                kakuremichi certs trust says how to trust it, --acme-email you@example.com turns ACME on

                """
        }
        let rows = certificates.map { entry in
            [
                entry.name, entry.state.rawValue, entry.issuer ?? "-", entry.notAfter.map { Self.relative($0, now) } ?? "-",
                entry.due.map { Self.relative($0, now) } ?? "-", entry.reason ?? "",
            ]
        }
        return Status.columns(["NAME", "STATE", "ISSUER", "EXPIRES", "DUE", "REASON"], rows).dropFirst().joined(separator: "\n") + "\n"
    }

    static func relative(_ time: Int, _ now: Int) -> String {
        time > now ? "in \(Status.span(time - now))" : time == now ? "now" : "\(Status.span(now - time)) ago"
    }
}

/// The ACME account of a gateway.
package struct CertificateAccount: Codable, Sendable, Equatable {
    package struct Registration: Codable, Sendable, Equatable {
        package var directory: String
        /// Nil if there is no account there yet.
        package var url: String?
        /// How the CA is called in CAA and DNS-PERSIST-01 records.
        package var issuer: String?
    }

    package var email: String
    package var thumbprint: String
    package var registrations: [Registration]
}
