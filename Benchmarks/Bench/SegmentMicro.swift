import BenchShim
import Inet
import TCPStack

/// Segments of one bulk connection on their way out of a stack and into another, and what it takes to find their connection.
enum SegmentMicro {
    static func run() {
        segments()
        flows()
    }

    private static func segments() {
        let pair = JoinedStacks()
        guard let (sender, receiver) = pair.connect() else { return print("the stacks do not connect") }
        var (out, into) = (Cost(), Cost())
        for round in 0...Micro.rounds {
            let bytes = pair.bytesRead
            pair.costOut = Cost()
            pair.costIn = Cost()
            while pair.bytesRead - bytes < 64_000_000 { pair.pushBulk(sender, receiver) }
            // The first round lets windows and buffers grow.
            guard round > 0 else { continue }
            out = out.better(pair.costOut)
            into = into.better(pair.costIn)
        }
        out.report("segment-out-1420", "a segment")
        into.report("segment-in-1420", "a segment")
    }

    /// With the keyed hash of the two ends, among 10,000 connections.
    private static func flows() {
        let count = 10_000
        let random = RandomSource.seeded(6)
        let key = SipHash(random: random)
        let local = SocketEndpoint(IPAddress(v4: 10, 1, 0, 1), port: 80)
        let remotes = (0..<count).map {
            SocketEndpoint(IPAddress(v4: 10, 2, UInt8($0 >> 8), UInt8($0 & 255)), port: UInt16(truncatingIfNeeded: random.nextUInt64()) | 1)
        }
        var table = FlowTable()
        for (index, remote) in remotes.enumerated() { table.insert(.connection(index), hash: key.hash(local: local, remote: remote)) }
        var (best, found) = (Cost(), 0)
        for _ in 0..<Micro.rounds {
            var cost = Cost()
            cost.measure {
                for remote in remotes {
                    var cursor = table.cursor(key.hash(local: local, remote: remote))
                    if table.next(&cursor) != nil { found += 1 }
                }
                return count
            }
            best = best.better(cost)
        }
        guard found == Micro.rounds * count else { return print("a flow was not found") }
        best.report("flow-lookup-\(count)", "a look-up")
    }
}

/// Nanoseconds and allocations of some operations.
struct Cost: Sendable {
    private var nanoseconds: UInt64 = 0
    private var allocations: UInt64 = 0
    private var count = 0

    /// - Parameter body: gives how many operations it did.
    mutating func measure(_ body: () -> Int) {
        let (before, start) = (bench_allocations(), bench_nanoseconds())
        count += body()
        nanoseconds += bench_nanoseconds() - start
        allocations += bench_allocations() - before
    }

    func better(_ other: Cost) -> Cost { count == 0 || other.each < each ? other : self }

    func report(_ name: String, _ unit: String) {
        Micro.report(name, each, "ns", nil)
        Micro.report("\(name)-allocations", Double(allocations) / Double(max(1, count)), unit, nil)
    }

    private var each: Double { Double(nanoseconds) / Double(max(1, count)) }
}
