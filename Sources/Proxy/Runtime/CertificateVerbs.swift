import FoundationEssentials

/// What a gateway's admin socket answers about certificates.
package enum CertificateVerbs {
    package static let list = "certificates"
    package static let account = "certificates-account"
    package static let renew = "certificates-renew"
    package static let revoke = "certificates-revoke"
    package static let export = "certificates-export"
    package static let adopt = "certificates-import"
    package static let rollOver = "certificates-rollover"

    package struct Renewal: Codable, Sendable, Equatable {
        /// Seconds since 1970: when it is ordered; the past or now is at once.
        package var due: Int
    }

    package struct Exported: Codable, Sendable, Equatable {
        package var pem: String
    }

    package struct Adopted: Codable, Sendable, Equatable {
        package var names: [String]
    }

    package struct RolledOver: Codable, Sendable, Equatable {
        package var thumbprint: String
        /// Directories at which the key could not be changed.
        package var failed: [String]
    }

    static func register(on admin: AdminSocket, certificates: GatewayCertificates) {
        admin.register(list) { _ in try encode(await certificates.list) }
        admin.register(account) { _ in try encode(await automatic(certificates).account) }
        admin.register(renew) { request in
            let due = try await automatic(certificates).renew(request.arguments?["name"] ?? "")
            return try encode(Renewal(due: Int(due.timeIntervalSince1970)))
        }
        admin.register(export) { request in
            try encode(Exported(pem: try await automatic(certificates).export(request.arguments?["name"] ?? "")))
        }
        admin.register(adopt) { request in
            try encode(Adopted(names: try await automatic(certificates).adopt(pem: request.arguments?["pem"] ?? "")))
        }
        // These ask a CA, which may take its time.
        admin.registerStream(revoke) { request, stream in
            let reason = try request.arguments?["reason"].map { text in
                guard let number = Int(text), [0, 1, 3, 4, 5].contains(number) else { throw AdminFault(error: "no such reason") }
                return number
            }
            try await automatic(certificates).revoke(request.arguments?["name"] ?? "", reason: reason)
            stream.write(Array("{}\n".utf8))
            stream.finish()
        }
        admin.registerStream(rollOver) { _, stream in
            let automatic = try automatic(certificates)
            let failed = try await automatic.rollOver()
            stream.write(try encode(RolledOver(thumbprint: await automatic.thumbprint, failed: failed)) + [0x0A])
            stream.finish()
        }
    }

    private static func automatic(_ certificates: GatewayCertificates) throws -> AutomaticCertificates {
        guard let automatic = certificates.automatic else {
            throw AdminFault(error: "ACME is off at this gateway; start it with --acme-email you@example.com")
        }
        return automatic
    }

    private static func encode(_ answer: some Encodable) throws -> [UInt8] { Array(try JSONEncoder().encode(answer)) }
}

extension GatewayCertificates {
    /// Those of ACME, and the configured files.
    package var list: CertificateList {
        get async {
            let now = Date()
            var entries = await automatic?.list ?? []
            entries.removeAll { entry in DomainPattern(entry.name).map { selector.isCoveredByFile($0) } ?? false }
            for file in selector.files {
                let end = Int(file.notValidAfter.timeIntervalSince1970)
                entries.append(
                    CertificateList.Entry(
                        name: file.names.first?.name ?? "", state: file.notValidAfter <= now ? .expired : .file,
                        names: file.names.map(\.name), notAfter: end, file: file.source))
            }
            return CertificateList(
                now: Int(now.timeIntervalSince1970), directories: automatic?.settings.authorities.map(\.directory.text) ?? [],
                certificates: entries)
        }
    }
}
