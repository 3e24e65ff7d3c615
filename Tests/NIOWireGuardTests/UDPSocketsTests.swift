import CSocketShim
import Inet
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import Testing

@Suite(.timeLimit(.minutes(1))) struct UDPSocketsTests {
    /// What `sendmsg` was asked, and what it shall answer.
    final class Kernel: Sendable {
        struct Call: Equatable {
            let count: Int
            let segmentSize: Int
            let first: UInt8
            var source: IPAddress?
            var isCutByKernel = true
        }

        let calls = NIOLockedValueBox<[Call]>([])
        let answers: NIOLockedValueBox<[Int]>
        init(answers: [Int]) { self.answers = NIOLockedValueBox(answers) }

        func send(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer, _ departure: Departure) -> Int {
            calls.withLockedValue {
                $0.append(
                    Call(
                        count: bytes.count, segmentSize: departure.segmentSize, first: bytes.first ?? 0, source: departure.source,
                        isCutByKernel: departure.isCutByKernel))
            }
            return answers.withLockedValue { $0.isEmpty ? bytes.count : $0.removeFirst() }
        }
    }

    /// Keeps the lines that users see.
    struct Lines: LogHandler {
        let written = NIOLockedValueBox<[String]>([])
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) { written.withLockedValue { $0.append("\(event.message)") } }
    }

    /// Sends `batches` of 100-byte datagrams numbered from 0 and waits until nothing is held.
    func run(
        answers: [Int], batches: [Int], to endpoint: String = "127.0.0.1:9", from source: String = "", lines: Lines = Lines()
    ) async throws -> (Kernel, UDPSockets.Counters) {
        let kernel = Kernel(answers: answers)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let target = try #require(SocketEndpoint(endpoint))
        let unblocked = loop.makePromise(of: Void.self)
        let counters = try await loop.flatSubmit {
            let sockets = UDPSockets(eventLoop: loop, logger: Logger(label: "test") { _ in lines }, sendCall: kernel.send)
            return sockets.bind(port: 0, handlers: .init(receive: { _, _ in }, unblocked: { unblocked.succeed(()) })).flatMap {
                var next = 0
                for count in batches {
                    let bytes = (next..<next + count).flatMap { [UInt8](repeating: UInt8($0), count: 100) }
                    next += count
                    bytes.withUnsafeBytes { sockets.send($0, Departure(to: target, from: IPAddress(source), segmentSize: 100)) }
                }
                if !sockets.isBlocked { unblocked.succeed(()) }
                return unblocked.futureResult.flatMap {
                    let counters = sockets.counters
                    return sockets.close().map { counters }
                }
            }
        }.get()
        return (kernel, counters)
    }

    @Test("a batch leaves in one call, a single datagram without a segment size")
    func segmentation() async throws {
        let (kernel, counters) = try await run(answers: [], batches: [3, 1])
        #expect(
            kernel.calls.withLockedValue { $0 } == [
                .init(count: 300, segmentSize: 100, first: 0), .init(count: 100, segmentSize: 0, first: 3, isCutByKernel: false),
            ])
        #expect(counters.datagramsSent == 4)
    }

    @Test("an error for one datagram is counted, once", arguments: [22, 5, 90, 1, 101])
    func singleError(errno: Int) async throws {
        let (kernel, counters) = try await run(answers: [-errno], batches: [1, 3])
        #expect(counters.sendErrors == 1)
        // The batch behind it is still a batch.
        #expect(kernel.calls.withLockedValue { $0.last } == .init(count: 300, segmentSize: 100, first: 1))
    }

    @Test("a kernel without UDP_SEGMENT is asked once, which is said once; each batch then leaves by one sendmmsg", arguments: [22, 5])
    func noSegmentation(errno: Int) async throws {
        let lines = Lines()
        let (kernel, counters) = try await run(answers: [-errno], batches: [2, 2], lines: lines)
        #expect(lines.written.withLockedValue { $0 } == ["The kernel refuses UDP_SEGMENT; datagrams are sent one by one"])
        #expect(kernel.calls.withLockedValue { $0.map(\.isCutByKernel) } == [true, false, false])
        #expect(kernel.calls.withLockedValue { $0.map(\.count) } == [200, 200, 200])
        #expect(counters.datagramsSent == 4 && counters.sendErrors == 0)
    }

    @Test("a destination that refuses every datagram does not turn batches off for the others")
    func refusedDestination() async throws {
        let (kernel, _) = try await run(answers: [-22, -22, -22], batches: [2, 2])
        #expect(kernel.calls.withLockedValue { $0.map(\.isCutByKernel) } == [true, false, false, true])
    }

    @Test("a batch that is too long for a destination is sent one by one, and the next is a batch again")
    func smallMTU() async throws {
        let (kernel, counters) = try await run(answers: [-90], batches: [2, 2])
        #expect(kernel.calls.withLockedValue { $0.map(\.isCutByKernel) } == [true, false, true])
        #expect(counters.datagramsSent == 4)
    }

    @Test("batches that worked once are given up after eight refusals in a row, not before")
    func laterRefusals() async throws {
        // A batch; seven refused ones, each sent one by one; one that works; eight refused ones; then no more are tried.
        let refused = [-5, 200]
        let answers = [200] + (0..<7).flatMap { _ in refused } + [200] + (0..<8).flatMap { _ in refused }
        let (kernel, counters) = try await run(answers: answers, batches: [Int](repeating: 2, count: 20))
        let tried = kernel.calls.withLockedValue { $0.count { $0.isCutByKernel } }
        #expect(tried == 17)
        #expect(counters.datagramsSent == 40 && counters.sendErrors == 0)
    }

    @Test("a full kernel buffer holds the batch and what was made meanwhile, and sends them in order")
    func wouldBlock() async throws {
        let (kernel, counters) = try await run(answers: [-11, -11], batches: [2, 1])
        #expect(kernel.calls.withLockedValue { $0.map(\.first) } == [0, 0, 0, 2])
        #expect(counters.datagramsSent == 3 && counters.sendErrors == 0)
    }

    @Test("one by one, the rest of a batch waits when the kernel's buffer fills in its middle")
    func wouldBlockInTheMiddle() async throws {
        let (kernel, counters) = try await run(answers: [-22, 100, -11], batches: [3])
        #expect(kernel.calls.withLockedValue { $0.map(\.first) } == [0, 0, 1, 1])
        #expect(counters.datagramsSent == 3)
    }

    @Test("UDP_SEGMENT that is refused is not taken for a source address that is refused")
    func sourceAndSegments() async throws {
        // The batch, the batch without the source; then one by one, with the source.
        let (kernel, counters) = try await run(answers: [-22, -22], batches: [2], from: "127.0.0.2")
        let source = try #require(IPAddress("127.0.0.2"))
        #expect(kernel.calls.withLockedValue { $0.map(\.source) } == [source, nil, source])
        #expect(kernel.calls.withLockedValue { $0.map(\.isCutByKernel) } == [true, true, false])
        #expect(counters.datagramsSent == 2 && counters.sendErrors == 0)
    }

    @Test("a source address that is refused is left out for the rest of its batch", arguments: [22, 99, 101])
    func refusedSource(errno: Int) async throws {
        let (kernel, counters) = try await run(answers: [-22, -22, -errno], batches: [3], from: "127.0.0.2")
        let source = try #require(IPAddress("127.0.0.2"))
        #expect(kernel.calls.withLockedValue { $0.map(\.source) } == [source, nil, source, nil])
        #expect(counters.datagramsSent == 3)
    }

    @Test("port 0 as a destination is an error of the kernel, nothing more")
    func portZero() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let target = try #require(SocketEndpoint("127.0.0.1:1"))
        let counters = try await loop.flatSubmit {
            let sockets = UDPSockets(eventLoop: loop)
            return sockets.bind(port: 0, handlers: .init(receive: { _, _ in })).flatMap {
                let bytes = [UInt8](repeating: 1, count: 32)
                bytes.withUnsafeBytes {
                    sockets.send($0, Departure(to: SocketEndpoint(target.address, port: 0), segmentSize: 32))
                    sockets.send($0, Departure(to: SocketEndpoint(target.address, port: 0), segmentSize: 16))
                }
                let counters = sockets.counters
                return sockets.close().map { counters }
            }
        }.get()
        #expect(counters.sendErrors == 3)
    }

    @Test("a port that is taken in one family is an error, not half an interface", arguments: ["0.0.0.0", "::"])
    func portInUse(address: String) async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let other = try await DatagramBootstrap(group: loop).bind(host: address, port: 0).get()
        let port = UInt16(try #require(other.localAddress?.port))
        await #expect(throws: InterfaceError.bindFailed(port: port, errno: 98)) {
            try await loop.flatSubmit {
                let sockets = UDPSockets(eventLoop: loop)
                return sockets.bind(port: port, handlers: .init(receive: { _, _ in }))
            }.get()
        }
        try await other.close()
    }

    @Test(
        "without one of the families the other one is used; any other error than a missing family is one",
        arguments: [(CInt(4), CInt(97)), (6, 97), (6, 99), (4, 93)])
    func missingFamily(family: CInt, errno: CInt) async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        try await loop.flatSubmit {
            let sockets = UDPSockets(eventLoop: loop, bindCall: { $0 == family ? -errno : csocket_udp_bind($0, $1, $2) })
            return sockets.bind(port: 0, handlers: .init(receive: { _, _ in })).flatMap {
                #expect(sockets.has(.v4) == (family != 4) && sockets.has(.v6) == (family != 6))
                #expect(sockets.port != 0)
                return sockets.close()
            }
        }.get()
        // No descriptor left.
        await #expect(throws: InterfaceError.bindFailed(port: 0, errno: 24)) {
            try await loop.flatSubmit {
                UDPSockets(eventLoop: loop, bindCall: { $0 == family ? -24 : csocket_udp_bind($0, $1, $2) })
                    .bind(port: 0, handlers: .init(receive: { _, _ in }))
            }.get()
        }
    }

    @Test("without either family there is nothing to bind")
    func noFamily() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        await #expect(throws: InterfaceError.bindFailed(port: 0, errno: 97)) {
            try await loop.flatSubmit {
                UDPSockets(eventLoop: loop, bindCall: { _, _, _ in -97 }).bind(port: 0, handlers: .init(receive: { _, _ in }))
            }.get()
        }
    }

    @Test("a socket that NIO has closed is bound again on its port and receives")
    func reopening() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let received = loop.makePromise(of: Int.self)
        let (sockets, port) = try await loop.flatSubmit {
            let sockets = UDPSockets(eventLoop: loop)
            return sockets.bind(port: 0, handlers: .init(receive: { span, _ in received.succeed(span.byteCount) })).map {
                (sockets, sockets.port)
            }
        }.get()
        try await loop.flatSubmit { sockets.closeForTesting(.v4) }.get()
        // Every few milliseconds a datagram, until one arrives.
        let target = try SocketAddress(ipAddress: "127.0.0.1", port: Int(port))
        let sender = try await DatagramBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let task = loop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(5)) { _ in
            sender.writeAndFlush(AddressedEnvelope(remoteAddress: target, data: ByteBuffer(repeating: 1, count: 77)), promise: nil)
        }
        #expect(try await received.futureResult.get() == 77)
        task.cancel()
        try await sender.close()
        try await loop.flatSubmit { sockets.close() }.get()
        try await group.shutdownGracefully()
    }
}
