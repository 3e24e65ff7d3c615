import Inet

/// The path's MTU, as ICMP, timeouts and probes tell it: RFC 1191, RFC 8201, RFC 4821, RFC 8899.
extension TCPConnection {
    /// Nothing below this is believed: an attacker who makes segments tiny makes each byte dear.
    var smallestPathMTU: Int { local.address.family == .v4 ? Self.smallestPathMTUv4 : Self.smallestPathMTUv6 }

    /// Packets have to become smaller. What is in flight and too large will not arrive.
    mutating func pathMTUFell(now: Instant) {
        flags.insert([.hasNewPathMTU, .needsPoll])
        let mss = effectiveMSS
        congestion.setMSS(mss, isFresh: false)
        guard state.isSynchronized else { return }
        scoreboard.resegment(mss: mss)
        pending.insert(.forcedRetransmission)
    }

    /// Text of the segment that shall try a larger size now; `nil` if none shall.
    /// - Parameter optionLength: bytes of the options that the segment bears.
    mutating func mtuProbeText(unsent: Int, optionLength: Int, now: Instant) -> Int? {
        guard pathMTU.isReduced, recovery.isOpen, !pathMTU.isProbing, let size = pathMTU.nextProbe(now: now) else { return nil }
        let text = min(peerMSS, size - headerLength) - optionLength
        // Enough behind it for its loss to be seen without a timeout.
        guard text > effectiveMSS, unsent >= text + 3 * effectiveMSS, congestion.cwnd >= text + 3 * effectiveMSS else { return nil }
        return text
    }

    mutating func mtuProbeArrived() {
        pathMTU.probeArrived()
        congestion.setMSS(effectiveMSS, isFresh: false)
        flags.insert(.hasNewPathMTU)
    }

    /// Looks whether the probe is among what has been found lost, and cuts it down.
    /// - Returns: its bytes.
    mutating func mtuProbeLost() -> Int {
        guard pathMTU.isProbing, let bytes = scoreboard.lostProbeBytes else { return 0 }
        pathMTU.probeLost()
        scoreboard.resegment(mss: effectiveMSS)
        pending.insert(.forcedRetransmission)
        return bytes
    }

    /// Timeouts in a row of a large segment: perhaps no router tells us that it is too large (RFC 8899 §4.3).
    mutating func suspectBlackHole(now: Instant) {
        guard recovery.timeouts >= Self.timeoutsOfBlackHole, !scoreboard.isEmpty, snd.wnd > 0 else { return }
        let isV4 = local.address.family == .v4
        let size = Int(scoreboard[0].length) + headerLength + (hasTimestamps ? 12 : 0)
        let isLate = now.since(unackedSince) >= limits.userTimeout / 2
        let isPersistent = isV4 && (isLate || recovery.timeouts >= Self.timeoutsOfNarrowPath)
        let smaller = isPersistent ? Self.leastPathMTUv4 : isV4 ? Self.basePathMTUv4 : Self.smallestPathMTUv6
        if smaller < size, pathMTU.suspectBlackHole(smaller) { pathMTUFell(now: now) }
    }

    /// 552: what Linux takes as the least path MTU; anything lower only serves attackers.
    static let smallestPathMTUv4 = 552
    static let smallestPathMTUv6 = 1280
    /// RFC 4821 §7.2: 1,024 bytes of text pass nearly everywhere.
    private static let basePathMTUv4 = 1076
    /// What every host takes (RFC 791 §3.1).
    private static let leastPathMTUv4 = 576
    private static let timeoutsOfBlackHole = 2
    private static let timeoutsOfNarrowPath = 6
}
