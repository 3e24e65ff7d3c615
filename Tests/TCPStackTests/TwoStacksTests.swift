import Inet
import TCPStack
import TestSupport
import Testing

/// Two stacks over a seeded link.
@Suite struct TwoStacksTests {
    @Test("a request and its answer cross a perfect link and leave nothing behind", arguments: [IPAddress.Family.v4, .v6])
    func requestAndAnswer(family: IPAddress.Family) throws {
        let pair = StackPair(family: family, link: .perfect, seed: 1)
        _ = try pair.server.listen(address: nil, port: 80, backlog: 16)
        let id = try pair.client.connect(from: pair.clientAddress, to: SocketEndpoint(pair.serverAddress, port: 80), now: pair.now)
        pair.start(client: id, request: 100, answer: 1000)
        pair.run(until: .seconds(5))
        #expect(pair.isFinished, "\(pair.summary)")
        pair.run(until: .seconds(70))
        #expect(pair.remains == 0)
    }

    @Test("1 MB each way on ten connections crosses a bad link, and every table is empty at the end", arguments: Self.links)
    func lossyLink(link: StackPair.Link, family: IPAddress.Family, algorithm: CongestionAlgorithm) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var configuration = StackConfiguration()
        configuration.congestion = algorithm
        // At 20 % loss, eight copies in a row are lost now and then.
        if link.loss > 0.1 { configuration.userTimeout = .seconds(2000) }
        let pair = StackPair(family: family, link: link, seed: seed, configuration: configuration)
        _ = try pair.server.listen(address: nil, port: 80, backlog: 16)
        for _ in 0..<10 {
            let id = try pair.client.connect(from: pair.clientAddress, to: SocketEndpoint(pair.serverAddress, port: 80), now: pair.now)
            pair.start(client: id, request: 1_000_000, answer: 1_000_000)
        }
        pair.run(until: .seconds(3000))
        #expect(pair.isFinished, "seed \(seed): \(pair.summary)")
        #expect(pair.remains == 0, "seed \(seed): \(pair.summary)")
    }

    static let links: [(StackPair.Link, IPAddress.Family, CongestionAlgorithm)] = [
        (StackPair.Link(), .v4, .cubic),
        (StackPair.Link(loss: 0.05, reorder: 0.05, duplicate: 0.02, corrupt: 0.01, jitter: .milliseconds(2)), .v4, .cubic),
        (StackPair.Link(loss: 0.2, delay: .milliseconds(2)), .v6, .newReno),
        (StackPair.Link(reorder: 0.3, duplicate: 0.3, jitter: .milliseconds(5)), .v6, .cubic),
    ]

    @Test("100 connections with small buffers and a reader with pauses survive 5 % loss") func manyConnections() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var configuration = StackConfiguration()
        configuration.receiveBufferInitial = 8192
        configuration.receiveBufferMaximum = 32_768
        configuration.sendBufferMaximum = 16_384
        let link = StackPair.Link(loss: 0.05, reorder: 0.05, duplicate: 0.05, corrupt: 0.01, jitter: .milliseconds(3))
        let pair = StackPair(family: .v4, link: link, seed: seed, configuration: configuration)
        pair.readPause = .milliseconds(700)
        _ = try pair.server.listen(address: nil, port: 80, backlog: 200)
        for _ in 0..<100 {
            let id = try pair.client.connect(from: pair.clientAddress, to: SocketEndpoint(pair.serverAddress, port: 80), now: pair.now)
            pair.start(client: id, request: 40_000, answer: 60_000)
        }
        pair.run(until: .seconds(3000))
        #expect(pair.isFinished, "seed \(seed): \(pair.summary)")
        #expect(pair.remains == 0, "seed \(seed): \(pair.summary)")
    }

    @Test("links and buffers drawn at random carry every byte", arguments: 0..<6) func randomLinks(round: Int) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        func chance(_ limit: Double) -> Double { Double(random.next(below: 1000)) / 1000 * limit }
        var configuration = StackConfiguration()
        configuration.receiveBufferInitial = 1 << Int(11 + random.next(below: 8))
        configuration.receiveBufferMaximum = configuration.receiveBufferInitial << Int(random.next(below: 5))
        configuration.sendBufferMaximum = 1 << Int(11 + random.next(below: 8))
        configuration.congestion = random.next(below: 2) == 0 ? .cubic : .newReno
        configuration.mtu = 1280 + Int(random.next(below: 141))
        configuration.userTimeout = .seconds(2000)
        var link = StackPair.Link(loss: chance(0.1), reorder: chance(0.2), duplicate: chance(0.1), corrupt: chance(0.02))
        link.delay = .microseconds(Int64(100 + random.next(below: 150_000)))
        link.jitter = link.delay / Int(1 + random.next(below: 10))
        let pair = StackPair(family: random.next(below: 2) == 0 ? .v4 : .v6, link: link, seed: seed, configuration: configuration)
        if random.next(below: 2) == 0 { pair.readPause = .milliseconds(Int64(random.next(below: 500))) }
        _ = try pair.server.listen(address: nil, port: 80, backlog: 16)
        let (request, answer) = (Int(random.next(below: 100_000)), Int(random.next(below: 100_000)))
        for _ in 0..<5 {
            let id = try pair.client.connect(from: pair.clientAddress, to: SocketEndpoint(pair.serverAddress, port: 80), now: pair.now)
            pair.start(client: id, request: request, answer: answer)
        }
        pair.run(until: .seconds(20_000))
        #expect(pair.isFinished, "seed \(seed): \(pair.summary)")
        #expect(pair.remains == 0, "seed \(seed): \(pair.summary)")
    }
}
