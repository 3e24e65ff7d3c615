import BenchShim
import Glibc
import Inet
import TCPStack
import TestSupport

/// Simulations of two stacks, one seed after another, until the time is up or one fails: the long form of what `scripts/test` runs.
enum Simulate {
    /// - Returns: the exit code.
    static func run(seconds: Double) -> CInt {
        let end = bench_nanoseconds() + UInt64(seconds * 1e9)
        var seed = UInt64.random(in: 0...UInt64.max)
        var (runs, packets) = (0, 0)
        print("simulation from seed \(seed)")
        while bench_nanoseconds() < end {
            let (simulation, fault) = StackScenario.drawn(from: seed).play()
            runs += 1
            packets += simulation.packets
            if fault != nil { return run(seed: seed) }
            seed &+= 1
        }
        print("simulation: \(runs) runs, \(packets) packets, last seed \(seed &- 1)")
        return 0
    }

    /// One seed, with all that can be said about it.
    static func run(seed: UInt64) -> CInt {
        let scenario = StackScenario.drawn(from: seed)
        print("simulation of seed \(seed): \(scenario)")
        let start = bench_nanoseconds()
        let (simulation, fault) = scenario.play()
        let spent = Double(bench_nanoseconds() - start) / 1e9
        print("\(simulation.packets) packets, \(simulation.elapsed) simulated in \(spent) s")
        guard let fault else { return 0 }
        print("FAILED: \(fault)")
        let smallest = scenario.shrunk()
        print("smallest: \(smallest)\n\(smallest.run() ?? "")")
        print("repeat it: swift run -c release bench simulate --seed \(seed)")
        return 1
    }
}
