import FoundationEssentials
import Inet
import NIOCore
import NIOWireGuard

/// Records by dynamic update, over TCP, signed with TSIG.
///
/// Source: RFC 2136 §2.5, RFC 8945.
package struct RFC2136Provider: DNSProvider {
    package let label = "rfc2136"
    private let server: SocketEndpoint
    private let zone: DNSName?
    private let key: TSIGKey
    private let transport: DNSTransport

    /// - Parameter zone: nil asks the server for the SOA of the record's name and those above it.
    package init(server: SocketEndpoint, zone: DNSName?, key: TSIGKey, group: any EventLoopGroup) {
        self.server = server
        self.zone = zone
        self.key = key
        transport = DNSTransport(group: group)
    }

    /// RFC 2136 §2.5.1: the value joins those that are there; an equal one is the same.
    package func add(_ record: TXTRecord) async throws {
        try await update(record, class: DNSClass.internet, timeToLive: TXTRecord.timeToLive)
    }

    /// RFC 2136 §2.5.4: this value of the set alone.
    package func remove(_ record: TXTRecord) async throws {
        try await update(record, class: DNSClass.none, timeToLive: 0)
    }

    private func update(_ record: TXTRecord, class: UInt16, timeToLive: UInt32) async throws(DNSFault) {
        guard let name = DNSName(record.name) else { throw DNSFault("rfc2136: \(record.name) is not a name") }
        let zone: DNSName
        if let given = self.zone { zone = given } else { zone = try await findZone(name) }
        guard name.lies(in: zone) else { throw DNSFault("rfc2136: \(name) does not lie in the zone \(zone)", isZoneMissing: true) }
        let message = DNSMessage(
            id: Self.number, flags: DNSFlags.update, questions: [.init(zone, DNSType.soa)],
            authorities: [.init(name, DNSType.txt, class: `class`, timeToLive: timeToLive, data: .text([Array(record.value.utf8)]))])
        let answer = try await exchange(message)
        guard answer.responseCode.rawValue == 0 else {
            throw DNSFault("rfc2136: \(server) refuses the update of \(zone): \(answer.responseCode)\(Self.hint(answer.responseCode))")
        }
    }

    private func findZone(_ name: DNSName) async throws(DNSFault) -> DNSName {
        var current: DNSName? = name
        while let candidate = current, !candidate.labels.isEmpty {
            let answer = try await exchange(DNSMessage(id: Self.number, flags: 0, questions: [.init(candidate, DNSType.soa)]))
            let owners = (answer.answers + answer.authorities).filter { $0.type == DNSType.soa }.map(\.name)
            if let owner = owners.first(where: { candidate.lies(in: $0) && !$0.labels.isEmpty }) { return owner }
            current = candidate.parent
        }
        throw DNSFault("rfc2136: \(server) has no zone for \(name): give zone, or name the primary server of the zone", isZoneMissing: true)
    }

    /// Signed both ways.
    private func exchange(_ message: DNSMessage) async throws(DNSFault) -> DNSMessage {
        do throws(DNSFault) {
            let (bytes, mac) = key.sign(message, at: Self.now)
            let answer = try await transport.ask(bytes, server, by: .tcp, limit: Self.limit) {
                guard let header = DNSMessage(header: $0), header.isResponse, header.id == message.id else { return false }
                return header.flags & DNSFlags.operation == message.flags & DNSFlags.operation && DNSMessage($0) != nil
            }
            guard let response = DNSMessage(answer) else { throw DNSFault("\(server): the answer is not understood") }
            do throws(DNSFault) {
                try key.verify(response, answer, requestMAC: mac, at: Self.now)
            } catch {
                throw DNSFault("\(server): \(error.reason)")
            }
            return response
        } catch {
            throw DNSFault("rfc2136: \(error.reason)")
        }
    }

    private static func hint(_ code: DNSResponseCode) -> String {
        switch code.description {
        case "REFUSED": "; the key may not change this zone"
        case "NOTAUTH", "NOTZONE": "; the server is not a primary server of this zone"
        case "NOTIMP": "; the server takes no updates"
        default: ""
        }
    }

    private static var number: UInt16 { UInt16(truncatingIfNeeded: SystemEdges.random.nextUInt32()) }
    private static var now: UInt64 { UInt64(max(0, Date().timeIntervalSince1970)) }
    private static let limit = Duration.seconds(15)
}
