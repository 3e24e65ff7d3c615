import BenchShim
import Glibc
import Inet
import TCPStack
import TestSupport

/// What one connection moves through a simulated path, beside what the response functions of Reno and CUBIC promise.
enum Goodput {
    /// One line a cell: LOSS% RTT-ms value Mbit/s mathis VALUE cubic VALUE.
    static func table(seeds: UInt64) {
        for loss in [0, 0.001, 0.01, 0.05, 0.2] {
            for rtt in [1, 10, 50, 100, 300] {
                let path = Path(loss: loss, rtt: .milliseconds(Int64(rtt)), rate: 1e9)
                let values = (1...seeds).compactMap { path.meanRate(seed: $0) }
                guard values.count == seeds else {
                    print("\(loss) \(rtt) failed")
                    continue
                }
                let mean = values.reduce(0, +) / Double(seeds)
                print("goodput \(loss) \(rtt) \(shown(mean)) mathis \(shown(path.mathis)) cubic \(shown(path.cubic))")
            }
        }
    }

    /// The two figures that have a goal.
    static func goals() {
        let long = Path(loss: 0, rtt: .milliseconds(300), rate: 200e6)
        Micro.report("stack-long-fat", (long.rate(from: .seconds(4), to: .seconds(5), seed: 1) ?? 0) / long.rate, "of 200 Mbit/s", nil)
        let lossy = Path(loss: 0.01, rtt: .milliseconds(50), rate: 1e9)
        let values = (1...10).compactMap { lossy.rate(from: .seconds(5), to: .seconds(65), seed: $0) }
        let mean = values.reduce(0, +) / Double(max(1, values.count))
        Micro.report("stack-lossy-50ms", mean / 1e6, "Mbit/s", lossy.cubic / 1e6)
    }

    private static func shown(_ rate: Double) -> Double { (rate / 1e6 * 100).rounded() / 100 }

    /// Loss on the way of the data only; a queue of twice the bandwidth-delay product.
    struct Path {
        var loss: Double
        var rtt: Duration
        var rate: Double

        private var seconds: Double { Double(rtt.inNanoseconds) / 1e9 }

        /// Mathis and others, 1997: MSS / RTT * sqrt(3/2) / sqrt(p), in bit/s.
        var mathis: Double { loss == 0 ? rate : min(rate, Double(Self.text) * 8 / seconds * (1.5 / loss).squareRoot()) }

        /// RFC 9438 §5.1, and no less than Reno (§4.3).
        var cubic: Double {
            guard loss > 0 else { return rate }
            let window = pow(0.4 * 3.7 / (4 * 0.3), 0.25) * pow(seconds, 0.75) / pow(loss, 0.75)
            return max(mathis, min(rate, Double(Self.text) * 8 / seconds * window))
        }

        /// Bit/s behind slow start, over some hundred round trips.
        func meanRate(seed: UInt64) -> Double? {
            let warmUp = max(Duration.seconds(2), rtt * 20)
            return rate(from: warmUp, to: warmUp + max(.seconds(10), rtt * 200), seed: seed)
        }

        /// Bit/s of what the application reads between two moments; `nil` if the connection ended.
        func rate(from start: Duration, to end: Duration, seed: UInt64) -> Double? {
            var data = SimulatedPath.Quality()
            data.loss = loss
            data.delay = rtt / 2
            data.rate = rate
            data.queue = max(100_000, Int(2 * rate / 8 * seconds))
            var acknowledgments = SimulatedPath.Quality()
            acknowledgments.delay = rtt / 2
            acknowledgments.rate = rate
            let simulation = StackSimulation(
                family: .v4, upstream: data, downstream: acknowledgments, seed: seed &* 7919, tick: .microseconds(10))
            simulation.add(client: ApplicationPlan(bytes: 1 << 40), server: ApplicationPlan())
            simulation.run(until: start)
            let before = simulation.conversations[0].server.received
            // 200 MB say enough.
            var until = start
            while until < end, simulation.conversations[0].server.received - before < 200_000_000 {
                until = min(end, until + .milliseconds(500))
                simulation.run(until: until)
            }
            let application = simulation.conversations[0].server
            guard simulation.violation == nil, application.id != nil, application.reason == nil else { return nil }
            return Double(application.received - before) * 8e9 / Double((until - start).inNanoseconds)
        }

        /// Of one segment: 1,420 bytes without IPv4, TCP and timestamps.
        private static let text = 1420 - 52
    }
}
