import Inet

/// Fragments in, whole packets on.
extension Stack {
    mutating func receiveFragment(_ packet: RawSpan, header: IPHeader, now: Instant) {
        guard let whole = fragments.receive(packet, header: header, drops: &drops, now: now) else { return }
        let bytes = unsafe whole.span.bytes
        // A fragment inside of a fragment is nobody's lawful packet.
        guard let header = try? IPHeader(parsing: bytes), header.fragment == nil else { return drops.count(.malformedFragment) }
        guard passesHeaderOptions(bytes, header: header, now: now) else { return }
        receiveWhole(bytes, header: header, now: now)
    }

    /// Gives up what has not become complete in time, and tells its source if it can know what is meant (RFC 792, RFC 4443 §3.3).
    mutating func expireFragments(now: Instant) {
        while let expired = fragments.popExpired(now: now) {
            drops.count(.fragmentTimeout, times: expired.count)
            guard let first = expired.first else { continue }
            let bytes = unsafe first.span.bytes
            guard let header = try? IPHeader(parsing: bytes) else { continue }
            sendError(.reassemblyTime, bytes, header: header, now: now)
        }
    }

    /// IPv4 options and IPv6 extension headers; most packets have none.
    @inline(__always)
    mutating func passesHeaderOptions(_ packet: RawSpan, header: IPHeader, now: Instant) -> Bool {
        guard header.headerLength > SegmentWriter.ipHeaderLength(header.source.family) else { return true }
        switch ExtensionHeaders.judge(packet, header: header) {
        case .fine: return true
        case .discarded(let reason): drops.count(reason)
        case .problem(let code, let pointer):
            drops.count(.refusedOption)
            sendError(.parameter(code: code, pointer: UInt32(pointer)), packet, header: header, now: now)
        }
        return false
    }
}
