import BenchShim
import FoundationEssentials
import Inet
import NIOCore
import NIOPosix
import NIOWireGuard
import TCPStack

/// Bytes between two processes through the library alone: one serves connections inside the tunnel, the other dials them.
enum TunnelBulk {
    /// Serves until the process ends.
    static func serve(configuration file: String, port: UInt16) throws -> Never {
        let interface = try start(file)
        _ = try interface.listen(port: port) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(BulkServer()) }
        }.wait()
        print("serving port \(port)")
        while true { pause() }
    }

    /// Moves `bytes` over each of so many connections and prints how long that took, connecting left out.
    static func transfer(
        configuration file: String, remote: SocketEndpoint, direction: BulkDirection, streams: Int, bytes: Int
    ) throws {
        let interface = try start(file)
        let loop = interface.eventLoop
        let completions = (0..<streams).map { _ in loop.makePromise(of: Void.self) }
        let channels = try completions.map { completion in
            try interface.connect(to: remote, options: options) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(BulkClient(direction, bytes, completion))
                }
            }.wait()
        }
        let (start, cpu) = (bench_nanoseconds(), bench_process_nanoseconds())
        for channel in channels { channel.pipeline.fireUserInboundEventTriggered(BulkClient.Begin()) }
        try EventLoopFuture.andAllSucceed(completions.map(\.futureResult), on: loop).wait()
        report(bytes: streams * bytes, nanoseconds: bench_nanoseconds() - start, cpu: bench_process_nanoseconds() - cpu)
        for channel in channels { channel.close(promise: nil) }
        try interface.drain(within: .seconds(1)).wait()
        try interface.close().wait()
    }

    /// Opens so many connections to an echo, moves a byte there and back on each, and keeps them until the process ends.
    static func hold(configuration file: String, remote: SocketEndpoint, count: Int) throws -> Never {
        let interface = try start(file)
        let batch = 100
        for first in stride(from: 0, to: count, by: batch) {
            let opened = (first..<min(count, first + batch)).map { _ in
                let answered = interface.eventLoop.makePromise(of: Void.self)
                return interface.connect(to: remote, options: options) { channel in
                    channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(OneByte(answered)) }
                }.flatMapErrorThrowing { error in
                    answered.fail(error)
                    throw error
                }.and(answered.futureResult)
            }
            _ = try EventLoopFuture.andAllSucceed(opened, on: interface.eventLoop).wait()
        }
        print("holding \(count)")
        while true { pause() }
    }

    static func report(bytes: Int, nanoseconds: UInt64, cpu: UInt64) {
        let peak = Double(bench_peak_kilobytes()) / 1024
        print("bytes \(bytes) seconds \(Double(nanoseconds) / 1e9) cpu \(Double(cpu) / 1e9) peak \(peak)")
    }

    private static func start(_ file: String) throws -> WireGuardInterface {
        bench_print_by_line()
        let text = try String(contentsOfFile: file, encoding: .utf8)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        return try WireGuardInterface.start(.init(wgQuick: text), on: group.next()).wait()
    }

    /// The first packet may have to wait for a handshake.
    private static let options: ConnectionOptions = {
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = .seconds(15)
        return options
    }()
}
