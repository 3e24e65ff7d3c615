import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import Testing

/// Real sockets: what arrives with a datagram, and where it leaves from.
@Suite(.timeLimit(.minutes(1))) struct UDPSocketsLoopbackTests {
    /// One end, with what it has received. Its members are touched on the loop only.
    final class End: @unchecked Sendable {
        struct Datagram: Equatable {
            let bytes: [UInt8]
            let arrival: Arrival
        }

        let loop: any EventLoop
        let sockets: UDPSockets
        private var received: [Datagram] = []
        private var waiting: (count: Int, promise: EventLoopPromise<[Datagram]>)?

        init(on loop: any EventLoop) async throws {
            self.loop = loop
            sockets = UDPSockets(eventLoop: loop)
            try await loop.flatSubmit { [self] in
                sockets.bind(port: 0, handlers: .init(receive: { [unowned self] in take($0, $1) }))
            }.get()
        }

        private func take(_ span: borrowing MutableRawSpan, _ arrival: Arrival) {
            received.append(Datagram(bytes: span.bytes.withUnsafeBytes { Array($0) }, arrival: arrival))
            guard let waiting, received.count >= waiting.count else { return }
            self.waiting = nil
            waiting.promise.succeed(received)
        }

        func send(_ bytes: [UInt8], _ departure: Departure) async throws {
            try await loop.submit { [self] in bytes.withUnsafeBytes { sockets.send($0, departure) } }.get()
        }

        /// What came, once there are `count`.
        func receives(_ count: Int) async throws -> [Datagram] {
            try await loop.flatSubmit { [self] in
                let promise = loop.makePromise(of: [Datagram].self)
                if received.count >= count { promise.succeed(received) } else { waiting = (count, promise) }
                return promise.futureResult
            }.get()
        }

        func close() async throws { try await loop.flatSubmit { [self] in sockets.close() }.get() }
    }

    func withEnds(_ body: (End, End) async throws -> Void) async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let (left, right) = (try await End(on: loop), try await End(on: loop))
        try await body(left, right)
        try await left.close()
        try await right.close()
    }

    @Test(
        "a datagram tells which of our addresses it was sent to, and the answer can leave from there",
        arguments: [("127.0.0.1", "127.0.0.2"), ("127.0.0.3", "127.1.2.3"), ("::1", "::1")])
    func localAddress(client: String, server: String) async throws {
        let (clientAddress, serverAddress) = (try #require(IPAddress(client)), try #require(IPAddress(server)))
        try await withEnds { left, right in
            try await left.send([1], Departure(to: SocketEndpoint(serverAddress, port: right.sockets.port), from: clientAddress))
            let question = try #require(try await right.receives(1).first?.arrival)
            #expect(question.source == SocketEndpoint(clientAddress, port: left.sockets.port))
            #expect(question.local == serverAddress)
            try await right.send([2], Departure(to: question.source, from: question.local))
            let answer = try #require(try await left.receives(1).first?.arrival)
            #expect(answer.source == SocketEndpoint(serverAddress, port: right.sockets.port) && answer.local == clientAddress)
        }
    }

    @Test(
        "ECN goes out with each datagram or batch, beside DSCP, and comes in with each", arguments: ["127.0.0.1", "::1"], [1, 40])
    func congestion(address: String, count: Int) async throws {
        let address = try #require(IPAddress(address))
        try await withEnds { left, right in
            for ecn in [0, 1, 2, 3, 0] as [UInt8] {
                let bytes = (0..<count).flatMap { _ in [UInt8](repeating: ecn, count: 1200) }
                let target = SocketEndpoint(address, port: right.sockets.port)
                try await left.send(bytes, Departure(to: target, from: address, segmentSize: 1200, trafficClass: 0x88 | ecn))
            }
            let received = try await right.receives(5 * count)
            #expect(received.map(\.arrival.ecn) == received.map { $0.bytes[0] })
            #expect(received.allSatisfy { $0.bytes == [UInt8](repeating: $0.bytes[0], count: 1200) })
            #expect(received.count == 5 * count && received.filter { $0.arrival.ecn == 3 }.count == count)
        }
    }

    @Test("a burst of single datagrams of many sizes comes in whole and in order")
    func burst() async throws {
        try await withEnds { left, right in
            let target = SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: right.sockets.port)
            let datagrams = (0..<300).map { number in [UInt8(number & 0xFF)] + [UInt8](repeating: 7, count: 1 + number * 37 % 9000) }
            for datagram in datagrams { try await left.send(datagram, Departure(to: target)) }
            #expect(try await right.receives(300).map(\.bytes) == datagrams)
        }
    }

    @Test("a source address that is not ours is left out, once for each send, and reported")
    func foreignSource() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let receiver = try await End(on: loop)
        let reported = NIOLockedValueBox<[IPAddress?]>([])
        let sockets = try await loop.flatSubmit {
            let sockets = UDPSockets(eventLoop: loop)
            let handlers = UDPSockets.Handlers(
                receive: { _, _ in }, sourceRefused: { departure in reported.withLockedValue { $0.append(departure.source) } })
            return sockets.bind(port: 0, handlers: handlers).map { sockets }
        }.get()
        for (own, foreign) in [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")] {
            let (own, foreign) = (try #require(IPAddress(own)), try #require(IPAddress(foreign)))
            let target = SocketEndpoint(own, port: receiver.sockets.port)
            try await loop.submit {
                [UInt8](repeating: 1, count: 300).withUnsafeBytes {
                    sockets.send($0, Departure(to: target, from: foreign, segmentSize: 100))
                    // Of the other family: nothing to leave out.
                    sockets.send($0, Departure(to: target, from: own.family == .v4 ? .anyV6 : .anyV4))
                }
            }.get()
            #expect(reported.withLockedValue { $0.last } == foreign)
        }
        let received = try await receiver.receives(8)
        #expect(received.map(\.bytes.count) == [100, 100, 100, 300, 100, 100, 100, 300])
        #expect(reported.withLockedValue { $0.count } == 2)
        let counters = try await loop.submit { sockets.counters }.get()
        #expect(counters.sendCalls == 6 && counters.datagramsSent == 8 && counters.sendErrors == 0)
        try await loop.flatSubmit { sockets.close() }.get()
        try await receiver.close()
    }

    @Test("another port is bound before the old one goes; the old one is free afterwards")
    func rebind() async throws {
        try await withEnds { left, right in
            let former = right.sockets.port
            let target = { SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: $0) as SocketEndpoint }
            try await left.send([1], Departure(to: target(former)))
            _ = try await right.receives(1)
            try await right.loop.flatSubmit { right.sockets.rebind(port: 0) }.get()
            let port = right.sockets.port
            #expect(port != former)
            try await left.send([2], Departure(to: target(port)))
            try await left.send([3], Departure(to: SocketEndpoint(IPAddress(v6High: 0, low: 1), port: port)))
            #expect(Set(try await right.receives(3).map(\.bytes)) == [[1], [2], [3]])
            try await left.loop.flatSubmit { left.sockets.rebind(port: former) }.get()
            try await left.send([4], Departure(to: target(port)))
            #expect(try await right.receives(4).last?.arrival.source.port == former)
        }
    }

    @Test("a port that is taken leaves the sockets where they are")
    func rebindFails() async throws {
        try await withEnds { left, right in
            let (taken, former) = (left.sockets.port, right.sockets.port)
            await #expect(throws: InterfaceError.bindFailed(port: taken, errno: 98)) {
                try await right.loop.flatSubmit { right.sockets.rebind(port: taken) }.get()
            }
            #expect(right.sockets.port == former)
            try await left.send([1], Departure(to: SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: former)))
            _ = try await right.receives(1)
            try await right.loop.flatSubmit { right.sockets.rebind(port: former) }.get()
            #expect(right.sockets.port == former)
        }
    }

    @Test("a mark is set on both sockets, or refused for want of the capability and nothing has changed")
    func mark() async throws {
        try await withEnds { left, right in
            let outcome = try await left.loop.submit { () -> InterfaceError? in
                do throws(InterfaceError) {
                    try left.sockets.setMark(7)
                    return nil
                } catch { return error }
            }.get()
            if let outcome {
                #expect(outcome == .markRefused(mark: 7, errno: 1) && outcome.description.contains("CAP_NET_ADMIN"))
            }
            #expect(left.sockets.mark == (outcome == nil ? 7 : 0))
            try await left.loop.flatSubmit { left.sockets.rebind(port: 0) }.get()
            try await left.send([1], Departure(to: SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: right.sockets.port)))
            _ = try await right.receives(1)
        }
    }
}
