import Inet

/// A link in virtual time: loss, delay, jitter (hence reordering), duplication, bit flips, a rate and an MTU. Repeatable from
/// its seed.
public struct SimulatedLink {
    /// What the link does to datagrams. Probabilities are 0 to 1.
    public struct Quality: Sendable {
        public var loss = 0.0
        public var duplication = 0.0
        public var corruption = 0.0
        /// The chance that a datagram is held back by `reorderingDelay`.
        public var reordering = 0.0
        public var reorderingDelay = Duration.milliseconds(15)
        public var delay = Duration.milliseconds(10)
        public var jitter = Duration.zero
        /// Larger datagrams vanish.
        public var mtu = 65_535
        public var isDown = false

        public init() {}
    }

    public struct Delivery {
        public var at: Instant
        public var sequence: Int
        public var bytes: [UInt8]
        public var source: SocketEndpoint
        public var destination: SocketEndpoint
    }

    public var quality: Quality
    private let random: RandomSource
    private var sequence = 0
    /// A binary heap by time, then by order of sending.
    private var heap: [Delivery] = []
    public private(set) var sent = 0
    public private(set) var lost = 0

    public init(quality: Quality, seed: UInt64) {
        self.quality = quality
        random = .seeded(seed)
    }

    public var nextDelivery: Instant? { heap.first?.at }
    public var inFlight: Int { heap.count }

    public mutating func send(_ bytes: [UInt8], from source: SocketEndpoint, to destination: SocketEndpoint, now: Instant) {
        sent += 1
        if quality.isDown || bytes.count > quality.mtu || happens(quality.loss) {
            lost += 1
            return
        }
        var bytes = bytes
        if happens(quality.corruption), !bytes.isEmpty {
            bytes[Int(random.next(below: UInt64(bytes.count)))] ^= 1 << UInt8(random.next(below: 8))
        }
        for _ in 0..<(happens(quality.duplication) ? 2 : 1) {
            var at = now + quality.delay + random.jitter(upTo: quality.jitter)
            if happens(quality.reordering) { at += quality.reorderingDelay }
            push(Delivery(at: at, sequence: sequence, bytes: bytes, source: source, destination: destination))
            sequence += 1
        }
    }

    /// The next datagram that has arrived by `now`.
    public mutating func receive(now: Instant) -> Delivery? {
        guard let first = heap.first, first.at <= now else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            siftDown()
        }
        return first
    }

    private func happens(_ probability: Double) -> Bool {
        probability > 0 && Double(random.nextUInt64() >> 11) * 0x1p-53 < probability
    }

    private static func isBefore(_ left: Delivery, _ right: Delivery) -> Bool {
        (left.at, left.sequence) < (right.at, right.sequence)
    }

    private mutating func push(_ delivery: Delivery) {
        heap.append(delivery)
        var child = heap.count - 1
        while child > 0, Self.isBefore(heap[child], heap[(child - 1) / 2]) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func siftDown() {
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && Self.isBefore(heap[child], heap[least]) {
                least = child
            }
            if least == parent { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
