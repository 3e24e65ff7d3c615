import Inet

/// SYN cookies: the answer to a SYN that costs no memory. All that is to be known of the connection comes back with its ACK.
///
/// ```
///  our ISN            31 30 time │ 29 28 27 MSS │ 26 ... 0 MAC
///  low bits of TSval   5 ECN │ 4 SACK permitted │ 3 ... 0 window scale, 15 without
/// ```
/// The MAC is keyed and covers both ends, the peer's ISN, the time and all options. The time counts in slots of 15 s; a cookie is
/// good in its own slot and the two behind it. The options besides the MSS need a peer that sends timestamps, as Linux has it.
///
/// Source: RFC 4987 §3.6.
struct SYNCookies {
    private let random: RandomSource
    /// The 60 s in which `current` makes cookies.
    private var epoch: UInt64 = 0
    private var current: SipHash
    private var previous: SipHash

    init(random: RandomSource) {
        self.random = random
        current = SipHash(random: random)
        previous = SipHash(random: random)
    }

    /// What a cookie carries beside the MSS.
    struct Options: Equatable {
        /// Six bits.
        var bits: UInt8

        static let none = Options(bits: noScale)

        init(bits: UInt8) { self.bits = bits }

        init(windowScale: UInt8?, isSACKPermitted: Bool, isECNPermitted: Bool) {
            bits = windowScale.map { min($0, HalfOpen.largestScale) } ?? Self.noScale
            if isSACKPermitted { bits |= Self.sackBit }
            if isECNPermitted { bits |= Self.ecnBit }
        }

        var windowScale: UInt8? { bits & Self.noScale == Self.noScale ? nil : bits & Self.noScale }
        var isSACKPermitted: Bool { bits & Self.sackBit != 0 }
        var isECNPermitted: Bool { bits & Self.ecnBit != 0 }

        /// `clock` with its low bits replaced, and never later than `clock`: TSval must not go back when the connection goes on
        /// with the true clock (RFC 7323 §5.2).
        func timestamp(notAfter clock: UInt32) -> UInt32 {
            let value = clock & ~Self.mask | UInt32(bits)
            return UInt32(bits) > clock & Self.mask ? value &- (Self.mask + 1) : value
        }

        init(echoed timestamp: UInt32) { bits = UInt8(timestamp & Self.mask) }

        private static let noScale: UInt8 = 15
        private static let sackBit: UInt8 = 16
        private static let ecnBit: UInt8 = 32
        private static let mask: UInt32 = 63
    }

    /// What the cookie is bound to.
    struct Subject {
        let local: SocketEndpoint
        let remote: SocketEndpoint
        let irs: SequenceNumber
        let hasTimestamps: Bool
        let options: Options
    }

    /// - Parameter mssIndex: 0 to 7.
    mutating func make(_ subject: Subject, mssIndex: Int, now: Instant) -> SequenceNumber {
        let slot = Self.slot(now)
        turn(to: slot / Self.slotsPerSecret)
        let mac = Self.mac(current, subject, mssIndex: mssIndex, slot: slot)
        return SequenceNumber(UInt32(truncatingIfNeeded: slot & 3) << 30 | UInt32(mssIndex) << 27 | mac)
    }

    /// - Returns: the MSS index; `nil` if we have not made `cookie` for `subject` lately.
    mutating func check(_ cookie: SequenceNumber, _ subject: Subject, now: Instant) -> Int? {
        let nowSlot = Self.slot(now)
        turn(to: nowSlot / Self.slotsPerSecret)
        let age = (nowSlot &- UInt64(cookie.rawValue >> 30)) & 3
        guard age < Self.slotsValid, nowSlot >= age else { return nil }
        let slot = nowSlot - age
        let mssIndex = Int(cookie.rawValue >> 27 & 7)
        let secret = slot / Self.slotsPerSecret == epoch ? current : previous
        guard Self.mac(secret, subject, mssIndex: mssIndex, slot: slot) == cookie.rawValue & Self.macMask else { return nil }
        return mssIndex
    }

    /// A new secret every 60 s; the one before is kept for what it has made.
    private mutating func turn(to epoch: UInt64) {
        guard epoch > self.epoch else { return }
        previous = epoch == self.epoch + 1 ? current : SipHash(random: random)
        current = SipHash(random: random)
        self.epoch = epoch
    }

    private static func mac(_ secret: SipHash, _ subject: Subject, mssIndex: Int, slot: UInt64) -> UInt32 {
        let words = UInt64(subject.irs.rawValue) | UInt64(subject.options.bits) << 32 | UInt64(mssIndex) << 40
        return UInt32(
            truncatingIfNeeded: secret.hash(
                local: subject.local, remote: subject.remote, words | (subject.hasTimestamps ? 1 << 48 : 0), slot)) & macMask
    }

    private static func slot(_ now: Instant) -> UInt64 { now.nanoseconds / UInt64(slotLength.inNanoseconds) }

    /// The index of the largest MSS not above `mss`.
    /// - Parameter offered: the largest that can be, from our MTU; it has the last index.
    static func mssIndex(_ mss: Int, offered: Int) -> Int {
        if mss >= offered { return sizes.count }
        return sizes.lastIndex { $0 <= mss } ?? 0
    }

    static func mss(index: Int, offered: Int) -> Int { index < sizes.count ? min(sizes[index], offered) : offered }

    /// Seven: the default of each family, what MTUs of 1,280 and 1,420 leave, and steps between.
    private static let sizes = [48, 256, 536, 940, 1220, 1240, 1360]

    private static let macMask: UInt32 = 1 << 27 - 1
    private static let slotLength: Duration = .seconds(15)
    private static let slotsValid: UInt64 = 3
    private static let slotsPerSecret: UInt64 = 4
    /// The longest that a cookie is good: 45 s.
    static let lifetime: Duration = slotLength * Int(slotsValid)
}
