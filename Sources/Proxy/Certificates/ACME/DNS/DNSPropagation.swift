import Inet
import NIOCore
import NIOWireGuard

/// Waits until a record can be seen where a CA looks for it.
///
/// A CA's resolver may ask any of the zone's servers, so that each of them is asked directly: a recursive resolver would go on
/// saying "no such name" from its cache. A server that does not answer stands in the way for `patience`; after that those that
/// do answer decide. Where none can be asked at all (a firewall that lets nothing but the resolver through) the resolver's word
/// counts, again after `patience`.
package struct DNSPropagation: Sendable {
    private let resolver: DNSResolver
    /// When to give up.
    private let limit: Duration
    private let patience: Duration
    private let port: UInt16

    /// - Parameter port: of the zone's servers.
    package init(resolver: DNSResolver, limit: Duration = Self.limit, patience: Duration = Self.patience, port: UInt16 = 53) {
        self.resolver = resolver
        self.limit = limit
        self.patience = patience
        self.port = port
    }

    /// Throws which server lacks the value, or why none could be asked.
    package func wait(for record: TXTRecord) async throws(DNSFault) {
        guard let name = DNSName(record.name) else { throw DNSFault("\(record.name) is not a name") }
        let start = SystemEdges.now
        while true {
            let view = await look(name)
            let isPatienceOver = SystemEdges.now - start >= patience
            if view.shows(record.value, isPatienceOver: isPatienceOver) { return }
            guard SystemEdges.now - start + Self.interval < limit else {
                throw DNSFault("\(record.name) is not everywhere after \(limit): \(view.complaint(record.value))")
            }
            try await DNSTimer.wait(Self.interval, on: resolver.transport.group)
        }
    }

    /// The values at `name` as its servers have them now, by one of them or by the resolver.
    package func values(at name: DNSName) async throws(DNSFault) -> [String] {
        let view = await look(name)
        for server in view.servers { if case .values(let values) = server.answer { return values } }
        return DNSResolver.texts(try await resolver.resolve(name, DNSType.txt), at: name)
    }

    private func look(_ name: DNSName) async -> View {
        var view = View()
        do throws(DNSFault) {
            let names = try await resolver.nameservers(of: try await resolver.zone(of: name))
            view.servers = await withTaskGroup(of: View.Server.self) { group in
                for server in names { group.addTask { await ask(server, name) } }
                return await group.reduce(into: []) { $0.append($1) }.sorted { $0.name < $1.name }
            }
        } catch {
            view.problem = error.reason
        }
        if !view.isAnyReachable, let answer = try? await resolver.resolve(name, DNSType.txt) {
            view.recursive = DNSResolver.texts(answer, at: name)
        }
        return view
    }

    /// What a server says at all of its addresses; those that do not answer count only if none does.
    private func ask(_ server: DNSName, _ name: DNSName) async -> View.Server {
        let addresses = await resolver.addresses(of: server)
        var silence = addresses.isEmpty ? "it has no address" : ""
        var common: [String]?
        for address in addresses {
            let endpoint = SocketEndpoint(address, port: port)
            do throws(DNSFault) {
                let answer = try await resolver.ask(endpoint, name, DNSType.txt, recursive: false, limit: Self.questionLimit)
                guard answer.responseCode.isAnswer else { throw DNSFault("\(endpoint): \(answer.responseCode)") }
                // A lame delegation: it knows nothing of the zone, or repeats what it has heard.
                guard answer.isAuthoritative else { throw DNSFault("\(endpoint): it does not serve the zone") }
                let values = DNSResolver.texts(answer, at: name)
                common = common.map { $0.filter { values.contains($0) } } ?? values
            } catch {
                silence = error.reason
            }
        }
        return View.Server(name: "\(server)", answer: common.map { .values($0) } ?? .silent(silence))
    }

    private struct View: Sendable {
        struct Server: Sendable {
            enum Answer: Sendable {
                case values([String])
                case silent(String)
            }
            var name: String
            var answer: Answer
        }
        var servers: [Server] = []
        var recursive: [String]?
        /// Why the servers are not known.
        var problem: String?

        var isAnyReachable: Bool { servers.contains { if case .values = $0.answer { true } else { false } } }

        func shows(_ value: String, isPatienceOver: Bool) -> Bool {
            guard isAnyReachable else { return isPatienceOver && recursive?.contains(value) == true }
            return servers.allSatisfy {
                switch $0.answer {
                case .values(let values): values.contains(value)
                case .silent: isPatienceOver
                }
            }
        }

        func complaint(_ value: String) -> String {
            var texts = servers.compactMap { server -> String? in
                switch server.answer {
                case .values(let values) where values.contains(value): nil
                case .values(let values) where values.isEmpty: "\(server.name) has no value there"
                case .values(let values): "\(server.name) has \(values.count == 1 ? "another value" : "\(values.count) other values") there"
                case .silent(let reason): "\(server.name) cannot be asked (\(reason))"
                }
            }
            if let problem { texts.append(problem) }
            if !isAnyReachable { texts.append(recursive == nil ? "the resolver does not answer" : "the resolver does not show it") }
            return texts.joined(separator: "; ")
        }
    }

    package static let limit = Duration.seconds(120)
    package static let patience = Duration.seconds(30)
    private static let interval = Duration.seconds(2)
    private static let questionLimit = Duration.seconds(3)
}
