import FoundationEssentials

/// What a process tells of itself, in parts.
extension Status {
    package struct Part: Codable, Sendable, Equatable {
        /// Of the first part: all but the lists.
        var status: Status?
        /// One that is named again has more allowed IPs.
        var peers: [Peer]?
        var routes: [Route]?
        var certificates: [CertificateList.Entry]?
    }

    package var parts: [Part] {
        var head = self
        (head.peers, head.routes) = ([], [])
        if head.certificates != nil { head.certificates = [] }
        var parts = [Part(status: head)]
        var batch: [Peer] = []
        var prefixes = 0
        func flush() {
            if !batch.isEmpty { parts.append(Part(peers: batch)) }
            (batch, prefixes) = ([], 0)
        }
        for peer in peers {
            // None at all is one piece, too.
            var pieces = peer.allowedIPs.isEmpty ? [[]] : Self.pieces(of: peer.allowedIPs, by: Self.maximumPrefixes)
            while !pieces.isEmpty {
                var piece = peer
                piece.allowedIPs = pieces.removeFirst()
                if batch.count == Self.maximumEntries || prefixes + piece.allowedIPs.count > Self.maximumPrefixes { flush() }
                batch.append(piece)
                prefixes += piece.allowedIPs.count
            }
        }
        flush()
        parts += Self.pieces(of: routes, by: Self.maximumEntries).map { Part(routes: $0) }
        parts += Self.pieces(of: certificates ?? [], by: Self.maximumEntries).map { Part(certificates: $0) }
        return parts
    }

    private static func pieces<Element>(of all: [Element], by size: Int) -> [[Element]] {
        stride(from: 0, to: all.count, by: size).map { Array(all[$0..<min($0 + size, all.count)]) }
    }

    /// Less than a megabyte of JSON.
    private static let maximumEntries = 1_000
    private static let maximumPrefixes = 10_000

    /// Joins the parts again.
    package struct Collector {
        package private(set) var status: Status?

        package init() {}

        /// - Parameter part: JSON; a process that knows no parts gives the whole status as one.
        package mutating func add(_ part: [UInt8]) throws {
            let next = try JSONDecoder().decode(Part.self, from: Data(part))
            guard status != nil else {
                status = try next.status ?? JSONDecoder().decode(Status.self, from: Data(part))
                return
            }
            var peers = next.peers ?? []
            if let last = status?.peers.indices.last, let first = peers.first, status?.peers[last].publicKey == first.publicKey {
                status?.peers[last].allowedIPs += first.allowedIPs
                peers.removeFirst()
            }
            status?.peers += peers
            status?.routes += next.routes ?? []
            status?.certificates? += next.certificates ?? []
        }
    }
}

extension MetricsText {
    package struct Part: Codable, Sendable, Equatable {
        package var metrics: String
    }

    /// Whole lines.
    package var parts: some Sequence<Part> {
        sequence(state: text.utf8[...]) { rest in
            guard !rest.isEmpty else { return nil }
            let end = rest.dropFirst(Self.partSize).firstIndex(of: 0x0A).map { rest.index(after: $0) } ?? rest.endIndex
            defer { rest = rest[end...] }
            return Part(metrics: String(rest[..<end]) ?? "")
        }
    }

    /// About the bytes of a part.
    private static let partSize = 256 * 1024
}
