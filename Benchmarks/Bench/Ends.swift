import BenchShim
import Glibc
import Inet

/// The ends of the transfers and connections that `scripts/bench` measures, as commands.
enum Ends {
    /// - Returns: `false` for arguments that make no sense.
    static func run(_ arguments: [String]) -> Bool {
        do {
            switch arguments[0] {
            case "serve":
                guard let port = UInt16(arguments[2]) else { return false }
                try TunnelBulk.serve(configuration: arguments[1], port: port)
            case "transfer":
                guard let remote = SocketEndpoint(arguments[2]), let (direction, streams, bytes) = transfer(arguments[3...]) else {
                    return false
                }
                try TunnelBulk.transfer(configuration: arguments[1], remote: remote, direction: direction, streams: streams, bytes: bytes)
            case "hold":
                guard let remote = SocketEndpoint(arguments[2]), let count = Int(arguments[3]) else { return false }
                try TunnelBulk.hold(configuration: arguments[1], remote: remote, count: count)
            case "kernel-serve":
                guard let port = UInt16(arguments[2]), bench_kernel_serve(arguments[1], port) == 0 else { return false }
            case "kernel-transfer":
                guard let port = UInt16(arguments[2]), let (direction, streams, bytes) = transfer(arguments[3...]) else { return false }
                kernelTransfer(arguments[1], port, direction, streams, bytes)
            case "tls":
                guard let port = UInt16(arguments[2]), let threads = CInt(arguments[5]), let seconds = Double(arguments[6]) else {
                    return false
                }
                tls(arguments[1], port, arguments[3], arguments[4], threads, seconds)
            default: return false
            }
        } catch {
            print("\(arguments[0]): \(error)")
            exit(1)
        }
        return true
    }

    private static func transfer(_ arguments: ArraySlice<String>) -> (BulkDirection, Int, Int)? {
        let values = Array(arguments)
        guard let direction = BulkDirection(values[0]), let streams = Int(values[1]), let bytes = Int(values[2]), streams > 0, bytes > 0
        else { return nil }
        return (direction, streams, bytes)
    }

    private static func kernelTransfer(_ address: String, _ port: UInt16, _ direction: BulkDirection, _ streams: Int, _ bytes: Int) {
        let cpu = bench_process_nanoseconds()
        let spent = bench_kernel_transfer(address, port, CChar(direction.rawValue), CInt(streams), UInt64(bytes))
        guard spent > 0 else {
            print("kernel-transfer: it failed")
            exit(1)
        }
        TunnelBulk.report(bytes: streams * bytes, nanoseconds: spent, cpu: bench_process_nanoseconds() - cpu)
    }

    private static func tls(_ address: String, _ port: UInt16, _ name: String, _ path: String, _ threads: CInt, _ seconds: Double) {
        var (completed, failed): (UInt64, UInt64) = (0, 0)
        let (start, cpu) = (bench_nanoseconds(), bench_process_nanoseconds())
        guard bench_tls_connections(address, port, name, path, threads, seconds, &completed, &failed) == 0 else {
            print("tls: it failed")
            exit(1)
        }
        let (spent, used) = (Double(bench_nanoseconds() - start) / 1e9, Double(bench_process_nanoseconds() - cpu) / 1e9)
        print("connections \(completed) failed \(failed) seconds \(spent) cpu \(used)")
    }
}
