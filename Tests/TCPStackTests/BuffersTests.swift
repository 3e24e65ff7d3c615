import Inet
import TCPStack
import TestSupport
import Testing

/// Whatever is written, kept, read, taken, trimmed and acknowledged in whatever order: the bytes are those of a plain list.
@Suite struct BuffersTests {
    /// Stays where it is; says when it goes.
    private final class Keeper {
        static func shared(_ bytes: [UInt8], _ left: Counter) -> SharedBytes {
            let keeper = Keeper(bytes, left)
            return SharedBytes(UnsafeRawBufferPointer(keeper.memory), owner: keeper)
        }

        private let memory: UnsafeMutableRawBufferPointer
        private let left: Counter

        private init(_ bytes: [UInt8], _ left: Counter) {
            memory = .allocate(byteCount: bytes.count, alignment: 1)
            memory.copyBytes(from: bytes)
            self.left = left
            left.count += 1
        }

        deinit {
            memory.deallocate()
            left.count -= 1
        }
    }

    private final class Counter { var count = 0 }

    @Test("a send buffer of copied and shared pieces gives any range again until it is acknowledged", arguments: 1...20)
    func sendBuffer(seed: UInt64) {
        let random = RandomSource.seeded(seed)
        let kept = Counter()
        var buffer = SendBuffer(limit: 300_000)
        var model: [UInt8] = []
        for _ in 0..<2000 {
            switch random.next(below: 10) {
            case 0...2:
                let bytes = Self.bytes(random, below: [50, 2000, 100_000][Int(random.next(below: 3))])
                let taken = buffer.append(bytes.span.bytes)
                #expect(taken == min(bytes.count, 300_000 - model.count))
                model += bytes.prefix(taken)
            case 3...4:
                let bytes = Self.bytes(random, below: 70_000)
                let taken = buffer.append(Keeper.shared(bytes, kept))
                #expect(taken == min(bytes.count, 300_000 - model.count))
                model += bytes.prefix(taken)
            case 5...7:
                guard !model.isEmpty else { continue }
                let offset = Int(random.next(below: UInt64(model.count)))
                let count = min(model.count - offset, 1 + Int(random.next(below: 40_000)))
                var packet = [UInt8](repeating: 0xEE, count: count + 8)
                do {
                    var span = packet.mutableSpan
                    var bytes = span.mutableBytes
                    buffer.copy(from: offset, count: count, into: &bytes, at: 4)
                }
                #expect(packet[4..<4 + count] == model[offset..<offset + count])
                #expect(packet.prefix(4) == [0xEE, 0xEE, 0xEE, 0xEE] && packet.suffix(4) == [0xEE, 0xEE, 0xEE, 0xEE])
            case 8:
                let count = random.next(below: 4) == 0 ? model.count : Int(random.next(below: UInt64(model.count) + 1))
                buffer.dropFirst(count)
                model.removeFirst(count)
            default: buffer.trim()
            }
            #expect(buffer.count == model.count)
            #expect(buffer.allocatedBytes >= 0 && buffer.allocatedBytes <= 300_000 * 2 + 600_000)
        }
        buffer.dropFirst(model.count)
        buffer.trim()
        #expect(buffer.allocatedBytes == 0)
        #expect(kept.count == 0)
    }

    @Test("a large shared buffer that is taken byte by byte counts as its bytes, in one piece") func trickle() {
        let kept = Counter()
        var buffer = SendBuffer(limit: 1000)
        let bytes = (0..<50_000).map { UInt8(truncatingIfNeeded: $0) }
        do {
            let whole = Array(bytes)
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: whole.count, alignment: 1)
            memory.copyBytes(from: whole)
            defer { memory.deallocate() }
            var offered = buffer.append(SharedBytes(UnsafeRawBufferPointer(memory), owner: kept))
            #expect(offered == 1000 && buffer.allocatedBytes == 1000)
            for _ in 0..<3000 {
                buffer.dropFirst(1)
                offered += buffer.append(SharedBytes(UnsafeRawBufferPointer(rebasing: memory[offered...]), owner: kept))
                #expect(buffer.count == 1000 && buffer.allocatedBytes <= 4000)
                var packet = [UInt8](repeating: 0, count: 1000)
                do {
                    var span = packet.mutableSpan
                    var target = span.mutableBytes
                    buffer.copy(from: 0, count: 1000, into: &target, at: 0)
                }
                #expect(packet.elementsEqual(bytes[offered - 1000..<offered]))
            }
            buffer.removeAll()
        }
        #expect(buffer.allocatedBytes == 0)
    }

    @Test("limits beyond what windows can be are cut to that") func largestLimits() {
        var window = ReceiveWindow(initial: 1 << 40, maximum: 1 << 40)
        window.scale = 14
        window.start(at: SequenceNumber(7), isOffered: false)
        #expect(window.windowField(isSYN: false) == 65_535)
        #expect(window.maximum == 1 << 30 && SendBuffer(limit: 1 << 40).limit == 1 << 30)
    }

    @Test("a receive window gives the bytes in order, read or taken, whatever order they come in", arguments: 1...20)
    func receiveWindow(seed: UInt64) {
        let random = RandomSource.seeded(seed)
        var window = ReceiveWindow(initial: 200_000, maximum: 200_000)
        let first = SequenceNumber(UInt32.max - 50_000)
        window.start(at: first, isOffered: false)
        _ = window.windowField(isSYN: true)
        let stream = Self.bytes(random, count: 400_000)
        var (read, early) = (0, [Range<Int>]())
        let now = Instant(nanoseconds: 1_000_000_000)
        while read < stream.count {
            let next = first.distance(to: window.nxt)
            switch random.next(below: 8) {
            case 0...3:
                let start = min(stream.count, next + (random.next(below: 3) == 0 ? Int(random.next(below: 20_000)) : 0))
                let end = min(stream.count, start + 1 + Int(random.next(below: 3000)), read + 200_000)
                guard start < end else { continue }
                _ = window.accept(stream[start..<end].span.bytes, at: first + start)
                early.append(start..<end)
            case 4...5:
                var target = [UInt8](repeating: 0, count: 1 + Int(random.next(below: 30_000)))
                let count: Int
                do {
                    var span = target.mutableSpan
                    var bytes = span.mutableBytes
                    count = window.read(into: &bytes, now: now, rtt: .milliseconds(1))
                }
                #expect(target[..<count] == stream[read..<read + count])
                read += count
            case 6:
                guard let block = window.take(now: now, rtt: .milliseconds(1)) else { continue }
                #expect(block.bytes == Array(stream[read..<read + block.filled.count]))
                read += block.filled.count
            default: window.trim()
            }
            #expect(window.readable == first.distance(to: window.nxt) - read)
            #expect(window.allocatedBytes <= 2_000_000)
        }
        window.trim()
        #expect(window.heldBytes == 0 && window.allocatedBytes == 0)
    }

    private static func bytes(_ random: RandomSource, below bound: UInt64) -> [UInt8] {
        bytes(random, count: 1 + Int(random.next(below: bound)))
    }

    private static func bytes(_ random: RandomSource, count: Int) -> [UInt8] {
        var value = random.nextUInt64()
        return (0..<count).map { _ in
            value = value &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: value >> 56)
        }
    }
}

extension TextBlock {
    fileprivate var bytes: [UInt8] {
        var block = self
        var bytes = [UInt8](repeating: 0, count: filled.count)
        var span = bytes.mutableSpan
        var target = span.mutableBytes
        _ = block.read(into: &target, at: 0)
        return bytes
    }
}
