import Glibc
import Inet

/// One direction between two hosts in virtual time: a bottleneck with a queue, then a wire that loses, doubles, damages and delays.
/// Repeatable from its seed.
package struct SimulatedPath {
    /// Probabilities are 0 to 1.
    package struct Quality: Sendable, Equatable {
        package var loss = 0.0
        package var burst: Burst?
        package var duplicate = 0.0
        package var corrupt = 0.0
        /// The chance that a packet is held back by half of the delay more.
        package var reorder = 0.0
        package var delay = Duration.milliseconds(10)
        /// Drawn for each packet, so it reorders too.
        package var jitter = Duration.zero
        /// Bits a second; `nil` has no bottleneck.
        package var rate: Double?
        /// Bytes that wait in front of the bottleneck.
        package var queue = 1 << 20
        /// Packets that find so many bytes in the queue are marked, if their transport understands it (RFC 3168 §5).
        package var mark: Int?
        /// Larger packets vanish, and the sender is told of it or not.
        package var mtu = 65_535
        package var tellsTooBig = false

        package init() {}
    }

    /// Gilbert and Elliott's two states, by time and not by packet: repeated retransmissions do not have to wear a bad state off.
    package struct Burst: Sendable, Equatable {
        /// The chance of loss in the bad state; the good one has `Quality.loss`.
        package var loss: Double
        /// Mean times, of exponential distributions.
        package var bad: Duration
        package var good: Duration

        package init(loss: Double, bad: Duration, good: Duration) {
            self.loss = loss
            self.bad = bad
            self.good = good
        }
    }

    package enum Passage {
        case lost
        case tooBig
        /// It arrives, and maybe a copy of it.
        case arrives(Instant, copy: Instant?, damagedBit: Int?, isMarked: Bool)
    }

    package var quality: Quality
    package var isDown = false
    package private(set) var sent = 0
    package private(set) var lost = 0
    private let random: RandomSource
    private var freeAt = Instant(nanoseconds: 0)
    private var isBad = false
    private var changesAt: Instant?

    package init(_ quality: Quality, seed: UInt64) {
        self.quality = quality
        random = .seeded(seed)
    }

    /// The share of packets that did not come through, of those that were sent so far.
    package var lossSoFar: Double { sent == 0 ? 0 : Double(lost) / Double(sent) }

    package mutating func send(byteCount: Int, now: Instant) -> Passage {
        sent += 1
        let isMarked = quality.mark.map { waiting(now: now) >= $0 } ?? false
        guard !isDown, let start = leavesQueue(byteCount: byteCount, now: now), !isLost(now: start) else {
            lost += 1
            return .lost
        }
        if byteCount > quality.mtu {
            lost += 1
            return .tooBig
        }
        let bit = random.happens(quality.corrupt) ? Int(random.next(below: UInt64(byteCount * 8))) : nil
        if bit != nil { lost += 1 }
        let copy = random.happens(quality.duplicate) ? arrival(start) : nil
        return .arrives(arrival(start), copy: copy, damagedBit: bit, isMarked: isMarked)
    }

    private func arrival(_ start: Instant) -> Instant {
        let held = random.happens(quality.reorder) ? quality.delay / 2 : .zero
        return start + quality.delay + held + random.jitter(upTo: quality.jitter)
    }

    /// Bytes in the queue.
    private func waiting(now: Instant) -> Int {
        guard let rate = quality.rate, freeAt > now else { return 0 }
        return Int(Double((freeAt - now).inNanoseconds) * rate / 8e9)
    }

    /// When the last bit is through the bottleneck; `nil` if the queue is full.
    private mutating func leavesQueue(byteCount: Int, now: Instant) -> Instant? {
        guard let rate = quality.rate else { return now }
        guard waiting(now: now) + byteCount <= quality.queue else { return nil }
        freeAt = max(freeAt, now) + .nanoseconds(Int64(Double(byteCount) * 8e9 / rate))
        return freeAt
    }

    private mutating func isLost(now: Instant) -> Bool {
        guard let burst = quality.burst else { return random.happens(quality.loss) }
        var change = changesAt ?? now + random.exponential(mean: burst.good)
        while change <= now {
            isBad.toggle()
            change += random.exponential(mean: isBad ? burst.bad : burst.good)
        }
        changesAt = change
        return random.happens(isBad ? burst.loss : quality.loss)
    }
}

extension RandomSource {
    /// True with this probability.
    package func happens(_ probability: Double) -> Bool { probability > 0 && unit < probability }

    /// 0 to below 1.
    package var unit: Double { Double(nextUInt64() >> 11) * 0x1p-53 }

    package func exponential(mean: Duration) -> Duration {
        .nanoseconds(1 + Int64(-log(1 - unit) * Double(mean.inNanoseconds)))
    }

    package func pick<Element>(_ choices: [Element]) -> Element { choices[Int(next(below: UInt64(choices.count)))] }

    /// Uniform in a closed range.
    package func integer(_ range: ClosedRange<Int>) -> Int { range.lowerBound + Int(next(below: UInt64(range.count))) }
}
