import Inet

/// Puts fragmented IPv4 and IPv6 datagrams together, within hard limits.
///
/// Fragments that overlap end their datagram, and what still comes of it is dropped (RFC 5722, here for IPv4 too); an exact copy of
/// a fragment is ignored (RFC 8200 §4.5 allows it). The first fragment must hold the upper-layer header (RFC 1858, RFC 7112).
///
/// Where a limit is reached, the oldest datagram gives way: lawful fragments come close together, so that what is old is the least
/// likely to be completed, and refusing the newest would shut everybody out for the lifetime of what a flood has left. It is the
/// oldest of the peer that holds the most, so that a flood displaces itself.
///
/// Source: RFC 791 §3.2, RFC 1122 §3.3.2, RFC 8200 §4.5. Their 60 s of patience is 30 s here.
package struct FragmentReassembler: ~Copyable {
    /// In the order of arrival, which is that of expiry.
    private var datagrams: [Datagram] = []
    /// Those with datagrams, and free places.
    private var peers: [Peer] = []
    /// What all fragments take, with an allowance for each.
    package private(set) var byteCount = 0

    package init() {}

    /// Datagrams that are not complete, those included of which nothing is accepted any more.
    package var count: Int { datagrams.count }
    package var next: Instant? { datagrams.first?.expires }

    /// Takes a fragment. What is dropped is counted in `drops`.
    /// - Parameters:
    ///   - packet: the whole packet, parsed as `header`, which must name a fragment.
    /// - Returns: the datagram that it completes, as one packet without fragment header.
    package mutating func receive(_ packet: RawSpan, header: IPHeader, drops: inout DropCounters, now: Instant) -> [UInt8]? {
        guard let fragment = header.fragment else { return nil }
        let bytes = packet.extracting(header.payload)
        let (start, end) = (fragment.offset, fragment.offset + bytes.byteCount)
        guard bytes.byteCount > 0, !fragment.hasMore || bytes.byteCount % 8 == 0,
            Self.statedLength(headerLength: header.headerLength, payload: end, family: header.source.family) <= 65_535
        else {
            drops.count(.malformedFragment)
            return nil
        }
        if start == 0, !Self.holdsUpperHeader(bytes, protocolNumber: header.upperProtocol.rawValue, family: header.source.family) {
            drops.count(.tinyFragment)
            return nil
        }
        let place = find(header, fragment) ?? makeDatagram(header, fragment, drops: &drops, now: now)
        guard !datagrams[place].isAbandoned else {
            drops.count(.fragmentOverlap)
            return nil
        }
        switch datagrams[place].fit(bytes, start: start, end: end, hasMore: fragment.hasMore) {
        case .duplicate:
            drops.count(.duplicateFragment)
            return nil
        case .overlap:
            drops.count(.fragmentOverlap, times: 1 + datagrams[place].pieces.count)
            abandon(place)
            return nil
        case .tooMany:
            drops.count(.fragmentLimit, times: 1 + datagrams[place].pieces.count)
            abandon(place)
            return nil
        case .free(let position):
            let cost = Self.pieceOverhead + bytes.byteCount + (start == 0 ? header.headerLength : 0)
            guard let place = makeRoom(for: cost, datagram: place, drops: &drops) else {
                drops.count(.fragmentLimit)
                return nil
            }
            charge(place, cost)
            datagrams[place].insert(packet, header: header, at: position)
        }
        // Making room may have moved it.
        guard let place = find(header, fragment), datagrams[place].isComplete else { return nil }
        guard let whole = datagrams[place].assemble() else {
            drops.count(.malformedFragment, times: datagrams[place].pieces.count)
            abandon(place)
            return nil
        }
        remove(place)
        return whole
    }

    /// A datagram whose time is over.
    package struct Expired {
        /// Fragments of it that were held.
        package let count: Int
        package let source: IPAddress
        package let destination: IPAddress
        /// The first fragment as it came, if it has come.
        package let first: [UInt8]?
    }

    package mutating func popExpired(now: Instant) -> Expired? {
        guard let oldest = datagrams.first, oldest.expires <= now else { return nil }
        let expired = Expired(
            count: oldest.pieces.count, source: oldest.source, destination: oldest.destination, first: oldest.firstFragment)
        remove(0)
        return expired
    }

    /// Forgets all datagrams whose ends match.
    package mutating func removeAll(where matches: (_ source: IPAddress, _ destination: IPAddress) -> Bool) {
        for place in datagrams.indices.reversed() where matches(datagrams[place].source, datagrams[place].destination) { remove(place) }
    }

    // MARK: table

    private func find(_ header: IPHeader, _ fragment: IPHeader.Fragment) -> Int? {
        let upper = Self.key(header)
        return datagrams.firstIndex {
            $0.identification == fragment.identification && $0.source == header.source && $0.destination == header.destination
                && $0.protocolNumber == upper
        }
    }

    /// IPv6 fragments of one datagram may name different headers (RFC 8200 §4.5).
    private static func key(_ header: IPHeader) -> UInt8 { header.source.family == .v4 ? header.upperProtocol.rawValue : 0 }

    private mutating func makeDatagram(
        _ header: IPHeader, _ fragment: IPHeader.Fragment, drops: inout DropCounters, now: Instant
    ) -> Int {
        let address = header.source.peer
        if let peer = peers.firstIndex(where: { $0.address == address }), peers[peer].datagrams >= Self.maximumDatagramsPerPeer {
            evictOldest(of: peer, drops: &drops)
        } else if datagrams.count >= Self.maximumDatagrams,
            let greediest = peers.indices.max(by: { peers[$0].datagrams < peers[$1].datagrams })
        {
            evictOldest(of: greediest, drops: &drops)
        }
        let peer: Int
        if let known = peers.firstIndex(where: { $0.address == address }) ?? peers.firstIndex(where: { $0.datagrams == 0 }) {
            peer = known
        } else {
            peer = peers.count
            peers.append(Peer(address: address))
        }
        peers[peer].address = address
        peers[peer].datagrams += 1
        datagrams.append(
            Datagram(
                source: header.source, destination: header.destination, identification: fragment.identification,
                protocolNumber: Self.key(header), peer: peer, expires: now + Self.lifetime))
        charge(datagrams.count - 1, Self.datagramOverhead)
        return datagrams.count - 1
    }

    /// - Returns: where the datagram is now; `nil` if it has given way itself.
    private mutating func makeRoom(for cost: Int, datagram place: Int, drops: inout DropCounters) -> Int? {
        var place = place
        while byteCount + cost > Self.maximumBytes {
            guard let greediest = peers.indices.max(by: { peers[$0].bytes < peers[$1].bytes }),
                let victim = datagrams.firstIndex(where: { $0.peer == greediest })
            else { return nil }
            evict(victim, drops: &drops)
            if victim == place { return nil }
            if victim < place { place -= 1 }
        }
        return place
    }

    private mutating func evictOldest(of peer: Int, drops: inout DropCounters) {
        if let place = datagrams.firstIndex(where: { $0.peer == peer }) { evict(place, drops: &drops) }
    }

    private mutating func evict(_ place: Int, drops: inout DropCounters) {
        drops.count(.fragmentLimit, times: datagrams[place].pieces.count)
        remove(place)
    }

    /// Nothing more is accepted of it, for the rest of its time (RFC 5722 §4); its memory is free.
    private mutating func abandon(_ place: Int) {
        charge(place, Self.datagramOverhead - datagrams[place].cost)
        datagrams[place].abandon()
    }

    private mutating func remove(_ place: Int) {
        charge(place, -datagrams[place].cost)
        let peer = datagrams[place].peer
        peers[peer].datagrams -= 1
        datagrams.remove(at: place)
        if datagrams.isEmpty { peers.removeAll(keepingCapacity: true) }
    }

    private mutating func charge(_ place: Int, _ cost: Int) {
        byteCount += cost
        datagrams[place].cost += cost
        peers[datagrams[place].peer].bytes += cost
    }

    package func brokenInvariant() -> String? {
        guard datagrams.count <= Self.maximumDatagrams, byteCount <= Self.maximumBytes else { return "\(count) fragmented datagrams" }
        guard datagrams.reduce(0, { $0 + $1.cost }) == byteCount else { return "fragments: \(byteCount) bytes accounted" }
        for peer in peers.indices {
            let own = datagrams.filter { $0.peer == peer }
            guard own.count == peers[peer].datagrams, own.count <= Self.maximumDatagramsPerPeer,
                own.reduce(0, { $0 + $1.cost }) == peers[peer].bytes
            else { return "fragments of \(peers[peer].address)" }
        }
        return nil
    }

    private struct Peer {
        var address: IPAddress
        var datagrams = 0
        var bytes = 0
    }

    // MARK: checks

    /// What the length field of the whole datagram would say.
    private static func statedLength(headerLength: Int, payload: Int, family: IPAddress.Family) -> Int {
        family == .v4 ? headerLength + payload : headerLength - ExtensionHeaders.fragmentLength - IPHeader.ipv6Length + payload
    }

    /// RFC 7112 §5, RFC 1858 §3.2: filters, and we ourselves, must see all of the header chain in the first fragment.
    private static func holdsUpperHeader(_ bytes: RawSpan, protocolNumber: UInt8, family: IPAddress.Family) -> Bool {
        var (next, offset) = (protocolNumber, 0)
        if family == .v6 {
            for _ in 0..<IPHeader.maximumExtensionHeaders where ExtensionHeaders.isWalked(next) {
                guard offset + 8 <= bytes.byteCount else { return false }
                next = bytes.byte(at: offset)
                offset += (Int(bytes.byte(at: offset + 1)) + 1) * 8
            }
        }
        let rest = bytes.byteCount - offset
        switch IPProtocol(rawValue: next) {
        case .tcp: return rest >= TCPHeader.minimumLength && rest >= Int(bytes.byte(at: offset + 12) >> 4) * 4
        case .udp, .icmp, .icmpV6: return rest >= 8
        default: return rest > 0 && !ExtensionHeaders.isWalked(next)
        }
    }

    // MARK: limits

    package static let maximumDatagrams = 64
    /// Of one IPv4 address or IPv6 /64.
    package static let maximumDatagramsPerPeer = 8
    /// 1 MB, headers and overhead included.
    package static let maximumBytes = 1 << 20
    /// Enough for 64 KB in packets of 576 bytes.
    package static let maximumPieces = 128
    package static let lifetime: Duration = .seconds(30)
    private static let pieceOverhead = 64
    private static let datagramOverhead = 256
}

extension FragmentReassembler {
    /// A datagram in pieces.
    private struct Datagram {
        let source: IPAddress
        let destination: IPAddress
        let identification: UInt32
        let protocolNumber: UInt8
        let peer: Int
        let expires: Instant
        /// By offset, without overlaps.
        private(set) var pieces: [Piece] = []
        /// The header of the first fragment, with the fragment header; empty until it comes.
        private var head: [UInt8] = []
        /// Bytes of the payload, known from the last fragment.
        private var total: Int?
        private var received = 0
        /// A bit for each ECN codepoint seen.
        private var codepoints: UInt8 = 0
        private(set) var isAbandoned = false
        /// What the table has charged.
        var cost = 0

        init(
            source: IPAddress, destination: IPAddress, identification: UInt32, protocolNumber: UInt8, peer: Int, expires: Instant
        ) {
            self.source = source
            self.destination = destination
            self.identification = identification
            self.protocolNumber = protocolNumber
            self.peer = peer
            self.expires = expires
        }

        struct Piece {
            let start: Int
            let bytes: [UInt8]
            var end: Int { start + bytes.count }
        }

        enum Fit {
            /// It belongs in front of this piece.
            case free(Int)
            case duplicate
            /// With a piece, or with the end that the last fragment has named.
            case overlap
            case tooMany
        }

        func fit(_ bytes: RawSpan, start: Int, end: Int, hasMore: Bool) -> Fit {
            var (low, high) = (0, pieces.count)
            while low < high {
                let middle = (low + high) / 2
                if pieces[middle].start < start { low = middle + 1 } else { high = middle }
            }
            if low < pieces.count, pieces[low].start == start, pieces[low].end == end, hasMore == (total != end),
                Self.isEqual(bytes, pieces[low].bytes)
            {
                return .duplicate
            }
            if low > 0, pieces[low - 1].end > start { return .overlap }
            if low < pieces.count, pieces[low].start < end { return .overlap }
            if let total, hasMore ? end >= total : end != total { return .overlap }
            if !hasMore, let last = pieces.last, last.end > end { return .overlap }
            return pieces.count < FragmentReassembler.maximumPieces ? .free(low) : .tooMany
        }

        private static func isEqual(_ bytes: RawSpan, _ held: [UInt8]) -> Bool {
            for index in held.indices where held[index] != bytes.byte(at: index) { return false }
            return true
        }

        mutating func insert(_ packet: RawSpan, header: IPHeader, at position: Int) {
            guard let fragment = header.fragment else { return }
            let bytes = Self.copy(packet, header.payload)
            pieces.insert(Piece(start: fragment.offset, bytes: bytes), at: position)
            received += bytes.count
            codepoints |= 1 << ECN(trafficClass: header.trafficClass).rawValue
            if fragment.offset == 0 { head = Self.copy(packet, 0..<header.headerLength) }
            if !fragment.hasMore { total = fragment.offset + bytes.count }
        }

        /// Without overlaps, as many bytes as there are to be are all of them.
        var isComplete: Bool { total == received }

        var firstFragment: [UInt8]? {
            guard let first = pieces.first, first.start == 0 else { return nil }
            return head + first.bytes
        }

        /// The whole packet; `nil` if it may not be put together.
        func assemble() -> [UInt8]? {
            guard let total else { return nil }
            let family = source.family
            // RFC 3168 §5.3: congestion that was told must not get lost, and is not told to who does not understand it.
            let isCongested = codepoints & 1 << ECN.ce.rawValue != 0
            if isCongested, codepoints & 1 << ECN.notECT.rawValue != 0 { return nil }
            let stated = FragmentReassembler.statedLength(headerLength: head.count, payload: total, family: family)
            guard stated <= 65_535 else { return nil }
            var packet: [UInt8] = []
            let headLength = family == .v4 ? head.count : head.count - ExtensionHeaders.fragmentLength
            packet.reserveCapacity(headLength + total)
            packet.append(contentsOf: head[..<headLength])
            for piece in pieces { packet.append(contentsOf: piece.bytes) }
            let nextHeader = unsafe ExtensionHeaders.nextHeaderPosition(in: head.span.bytes, before: headLength)
            var span = packet.mutableSpan
            var bytes = unsafe span.mutableBytes
            if isCongested { ECN.ce.write(into: &bytes, at: 0) }
            switch family {
            case .v4:
                bytes.storeBigEndian(UInt16(stated), at: 2)
                bytes.storeBigEndian(UInt16(0), at: 6)
                bytes.storeBigEndian(UInt16(0), at: 10)
                bytes.storeBigEndian(InternetChecksum.of(bytes.bytes.extracting(0..<headLength)), at: 10)
            case .v6:
                bytes.storeBigEndian(UInt16(stated), at: 4)
                bytes.store(head[headLength], at: nextHeader)
            }
            return packet
        }

        mutating func abandon() {
            isAbandoned = true
            pieces = []
            head = []
            total = nil
            received = 0
        }

        private static func copy(_ packet: RawSpan, _ range: Range<Int>) -> [UInt8] {
            unsafe packet.extracting(range).withUnsafeBytes { unsafe [UInt8]($0) }
        }
    }
}
