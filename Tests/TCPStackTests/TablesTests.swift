import Inet
import TCPStack
import Testing

/// The flow table, the deadline queue, the slab, the rings: against plain models.
@Suite struct TablesTests {
    @Test("the flow table agrees with a dictionary, colliding hashes included") func flowTable() {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        var table = FlowTable()
        var model: [Int: UInt64] = [:]
        for step in 0..<20_000 {
            if random.next(below: 5) < (step < 10_000 ? 3 : 2) {
                let hash = random.next(below: 300) << 20 | random.next(below: 2000)
                table.insert(Self.kind(step), hash: hash)
                model[step] = hash
            } else if let (value, hash) = model.first {
                table.remove(Self.kind(value), hash: hash)
                model[value] = nil
            }
        }
        #expect(table.count == model.count, "seed \(seed)")
        for (value, hash) in model {
            var cursor = table.cursor(hash)
            var found = false
            while let flow = table.next(&cursor) { found = found || flow == Self.kind(value) }
            #expect(found, "seed \(seed)")
        }
    }

    private static func kind(_ number: Int) -> FlowTable.Flow {
        switch number % 3 {
        case 0: .connection(number)
        case 1: .timeWait(number)
        default: .halfOpen(number)
        }
    }

    @Test("the deadline queue never wakes a slot late, and gives each once") func deadlines() {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        var queue = DeadlineQueue()
        var model: [Int: UInt64] = [:]
        var now: UInt64 = 0
        for _ in 0..<20_000 {
            switch random.next(below: 4) {
            case 0, 1:
                let slot = Int(random.next(below: 100))
                let moment = now + 1 + random.next(below: 1000)
                queue.schedule(slot, at: Instant(nanoseconds: moment))
                model[slot] = min(model[slot] ?? .max, moment)
            case 2:
                let slot = Int(random.next(below: 100))
                queue.remove(slot)
                model[slot] = nil
            default:
                now += random.next(below: 200)
                var woken: Set<Int> = []
                while let slot = queue.popExpired(now: Instant(nanoseconds: now)) { woken.insert(slot) }
                #expect(woken == Set(model.filter { $0.value <= now }.keys), "seed \(seed)")
                for slot in woken { model[slot] = nil }
            }
            #expect(queue.next?.nanoseconds == model.values.min(), "seed \(seed)")
            #expect(queue.count == model.count, "seed \(seed)")
        }
    }

    @Test("an idle connection takes at most 1 KB") func connectionSize() { #expect(Stack.connectionSize <= 1024) }

    @Test("a slab's handle dies with its element") func slab() {
        var slab = Slab<Int>()
        let first = slab.insert(7)
        var found = slab.index(of: first)
        #expect(found == 0)
        slab.remove(0)
        let second = slab.insert(8)
        found = slab.index(of: first)
        #expect(found == nil)
        found = slab.index(of: second)
        #expect(found == 0)
        for value in 0..<100 { _ = slab.insert(value) }
        let (value, count) = (slab[0], slab.count)
        #expect(value == 8 && count == 101)
    }

    @Test("a ring keeps its bytes while it wraps and grows") func ring() {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        var ring = RingBuffer()
        var model: [UInt8] = []
        for _ in 0..<3000 {
            if random.next(below: 2) == 0 {
                let bytes = (0..<Int(random.next(below: 700))).map { _ in UInt8(truncatingIfNeeded: random.nextUInt32()) }
                ring.reserve(model.count + bytes.count, keeping: model.count)
                ring.write(bytes.span.bytes, at: model.count)
                model += bytes
            } else {
                let count = Int(random.next(below: UInt64(min(model.count, 600) + 1)))
                var target = [UInt8](repeating: 0, count: count)
                do {
                    var span = target.mutableSpan
                    var bytes = span.mutableBytes
                    ring.copy(from: 0, count: count, into: &bytes, at: 0)
                }
                #expect(target == Array(model.prefix(count)), "seed \(seed)")
                ring.dropFirst(count)
                model.removeFirst(count)
            }
        }
    }

    @Test("a queue in a ring keeps its order") func fifo() {
        var fifo = Fifo<Int>()
        var expected = 0
        for value in 0..<1000 {
            fifo.append(value)
            if value % 3 == 0 {
                let value = fifo.popFirst()
                #expect(value == expected)
                expected += 1
            }
        }
        while let value = fifo.popFirst() {
            #expect(value == expected)
            expected += 1
        }
        #expect(expected == 1000)
    }

    @Test("a token bucket lets its burst and then its rate through") func bucket() {
        var bucket = TokenBucket(rate: 10, burst: 5)
        var now = Instant(nanoseconds: 1_000_000_000)
        var taken: [Int] = []
        for pause in [Duration.zero, .seconds(1), .milliseconds(100)] {
            now += pause
            var count = 0
            for _ in 0..<20 where bucket.take(now: now) { count += 1 }
            taken.append(count)
        }
        #expect(taken == [5, 5, 1])
    }

    @Test("SipHash-2-4 gives the reference value") func sipHash() {
        // Appendix A of the paper, cut to its first eight message bytes, from the authors' vectors.h (row 8).
        let hash = SipHash(key0: 0x0706_0504_0302_0100, key1: 0x0F0E_0D0C_0B0A_0908)
        #expect(hash.hash([0x0706_0504_0302_0100]) == 0x93F5_F579_9A93_2462)
    }

    @Test("the cube root is exact enough") func cubeRoot() {
        for value in [1e-9, 0.001, 0.5, 1, 8, 27, 1000, 12_345.678, 1e12] {
            let root = Cubic.cubeRoot(value)
            #expect(abs(root * root * root - value) < value * 1e-9)
        }
        #expect(Cubic.cubeRoot(0) == 0 && Cubic.cubeRoot(-1) == 0)
    }
}
