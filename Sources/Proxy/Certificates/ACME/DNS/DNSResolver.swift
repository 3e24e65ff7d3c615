import Inet
import NIOCore
import NIOWireGuard

/// A stub resolver: asks the recursive servers of this machine, or any one server, by UDP and, when an answer is cut off, by TCP.
///
/// It keeps nothing and validates nothing (no DNSSEC): whoever decides is the CA, which looks for itself.
///
/// Source: RFC 1035 §7, RFC 5452 §9, RFC 7766 §5.
package struct DNSResolver: Sendable {
    package let transport: DNSTransport
    private let source: Source

    private enum Source: Sendable {
        case fixed([SocketEndpoint])
        /// Read for each question: networks come and go.
        case file(String)
    }

    package init(servers: [SocketEndpoint], group: any EventLoopGroup) {
        self.init(source: .fixed(Array(servers.prefix(Self.maximumServers))), group: group)
    }

    private init(source: Source, group: any EventLoopGroup) {
        self.source = source
        transport = DNSTransport(group: group)
    }

    /// - Parameter override: asked in the place of those in `/etc/resolv.conf`.
    package static func system(
        override: SocketEndpoint?, file: String = "/etc/resolv.conf", group: any EventLoopGroup
    ) -> DNSResolver {
        DNSResolver(source: override.map { .fixed([$0]) } ?? .file(file), group: group)
    }

    /// Those that are asked now.
    package var servers: [SocketEndpoint] {
        switch source {
        case .fixed(let servers): servers
        case .file(let path): Self.nameservers((try? SystemFiles.read(path, limit: 64 * 1_024))?.bytes ?? [])
        }
    }

    /// resolv.conf(5): this machine if there are none. Addresses with a zone are passed over.
    package static func nameservers(_ resolvConf: [UInt8]) -> [SocketEndpoint] {
        let lines = String(decoding: resolvConf, as: UTF8.self).split(whereSeparator: \.isNewline)
        let found = lines.compactMap { line -> SocketEndpoint? in
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count >= 2, words[0] == "nameserver" else { return nil }
            return IPAddress(String(words[1])).map { SocketEndpoint($0, port: 53) }
        }
        return found.isEmpty ? [SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: 53)] : Array(found.prefix(maximumServers))
    }

    /// The answer of the first server that has one: NOERROR or NXDOMAIN.
    package func resolve(_ name: DNSName, _ type: UInt16) async throws(DNSFault) -> DNSMessage {
        var faults: [String] = []
        // As resolv.conf(5) has it: all servers, then all again.
        for limit in [Duration.seconds(2), .seconds(4)] {
            for server in servers {
                do throws(DNSFault) {
                    let answer = try await ask(server, name, type, recursive: true, limit: limit)
                    if answer.responseCode.isAnswer { return answer }
                    faults.append("\(server): \(answer.responseCode)")
                } catch {
                    faults.append(error.reason)
                }
                if Task.isCancelled { throw DNSFault("it was cancelled") }
            }
        }
        let reasons = faults.reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        throw DNSFault("\(name) was not resolved: \(reasons.joined(separator: "; "))")
    }

    /// One server's answer, whatever it says.
    package func ask(
        _ server: SocketEndpoint, _ name: DNSName, _ type: UInt16, recursive: Bool, limit: Duration
    ) async throws(DNSFault) -> DNSMessage {
        let query = DNSMessage(
            id: UInt16(truncatingIfNeeded: SystemEdges.random.nextUInt32()), flags: recursive ? DNSFlags.recursionDesired : 0,
            questions: [.init(name, type)])
        let bytes = query.encode()
        for way in [DNSTransport.Way.udp, .tcp] {
            let answer = try await transport.ask(bytes, server, by: way, limit: limit) { Self.isAnswer($0, to: query) }
            guard let message = DNSMessage(answer) else { continue }
            if !message.isTruncated || way == .tcp { return message }
        }
        throw DNSFault("\(server): no whole answer")
    }

    /// RFC 5452 §9.1. Old servers cut within a record: of what is marked as cut the header alone is looked at, and TCP is next.
    private static func isAnswer(_ bytes: [UInt8], to query: DNSMessage) -> Bool {
        guard let header = DNSMessage(header: bytes), header.isResponse, header.id == query.id else { return false }
        return DNSMessage(bytes)?.answers(query) ?? header.isTruncated
    }

    /// Where the record of `name` is to stand: the end of its chain of CNAMEs, with at most eight of them.
    package func target(of name: DNSName) async throws(DNSFault) -> DNSName {
        var current = name
        for _ in 0...Self.maximumAliases {
            let answer = try await resolve(current, DNSType.cname)
            let next = answer.answers.lazy.compactMap { record -> DNSName? in
                guard record.name == current, record.type == DNSType.cname, case .name(let target) = record.data else { return nil }
                return target
            }.first
            guard let next else { return current }
            current = next
        }
        throw DNSFault("\(name) has a chain of more than \(Self.maximumAliases) CNAME records, or one that leads back")
    }

    /// The zone that `name` lies in: the owner of the SOA record that its servers answer with.
    ///
    /// Source: RFC 2308 §3.
    package func zone(of name: DNSName) async throws(DNSFault) -> DNSName {
        var current: DNSName? = name
        while let candidate = current, !candidate.labels.isEmpty {
            let answer = try await resolve(candidate, DNSType.soa)
            let owners = (answer.answers + answer.authorities).filter { $0.type == DNSType.soa }.map(\.name)
            if let owner = owners.first(where: { candidate.lies(in: $0) && !$0.labels.isEmpty }) { return owner }
            current = candidate.parent
        }
        throw DNSFault("no zone was found for \(name)")
    }

    /// The names of a zone's servers.
    package func nameservers(of zone: DNSName) async throws(DNSFault) -> [DNSName] {
        let answer = try await resolve(zone, DNSType.ns)
        let names = answer.answers.compactMap { record -> DNSName? in
            if record.name == zone, case .name(let name) = record.data, record.type == DNSType.ns { name } else { nil }
        }
        guard !names.isEmpty else { throw DNSFault("the zone \(zone) has no servers") }
        return Array(names.prefix(Self.maximumNameservers))
    }

    /// IPv4 before IPv6. Empty if there is none.
    package func addresses(of name: DNSName) async -> [IPAddress] {
        var addresses: [IPAddress] = []
        for type in [DNSType.a, DNSType.aaaa] {
            let answer = try? await resolve(name, type)
            let found = (answer?.answers ?? []).compactMap { record -> IPAddress? in
                if case .address(let address) = record.data { address } else { nil }
            }
            addresses += found.prefix(Self.maximumAddresses)
        }
        return addresses
    }

    /// The values of the TXT records at `name` in an answer.
    package static func texts(_ answer: DNSMessage, at name: DNSName) -> [String] {
        answer.answers.compactMap { $0.type == DNSType.txt && $0.name == name ? $0.data.joinedText : nil }
    }

    private static let maximumServers = 3
    private static let maximumAliases = 8
    private static let maximumNameservers = 13
    /// Of each family.
    private static let maximumAddresses = 4
}
