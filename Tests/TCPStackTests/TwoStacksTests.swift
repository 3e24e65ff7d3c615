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
}
