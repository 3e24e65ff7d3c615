import Inet
import NIOCore
import NIOEmbedded
import Proxy
import Testing

@Suite struct AgentInquiriesTests {
    /// The questions that reached the tunnel, in order. Used on the one thread of a test.
    private final class Questions: @unchecked Sendable {
        var promises: [EventLoopPromise<Bool>] = []
    }

    private let loop = EmbeddedEventLoop()
    private let questions = Questions()
    private let agent = SocketEndpoint(IPAddress(v4: 10, 1, 0, 2), port: 80)
    private let other = SocketEndpoint(IPAddress(v4: 10, 1, 0, 3), port: 80)

    private func inquiries() -> AgentInquiries {
        AgentInquiries(eventLoop: loop, memory: .seconds(1)) { [questions, loop] _, _ in
            let promise = loop.makePromise(of: Bool.self)
            questions.promises.append(promise)
            return promise.futureResult
        }
    }

    @Test("5,000 who wait for one agent ask one question and share its answer", arguments: [false, true])
    func shared(answer: Bool) throws {
        let inquiries = inquiries()
        let results = (0..<5000).map { _ in inquiries.ask(agent, from: nil) }
        #expect(questions.promises.count == 1)
        _ = inquiries.ask(other, from: nil)
        #expect(questions.promises.count == 2)
        for promise in questions.promises { promise.succeed(answer) }
        #expect(try results.allSatisfy { try $0.wait() == answer })
    }

    @Test("an answer counts for as long as a silence lasts, silence not at all")
    func memory() throws {
        let inquiries = inquiries()
        _ = inquiries.ask(agent, from: nil)
        questions.promises[0].succeed(true)
        loop.advanceTime(by: .milliseconds(999))
        #expect(try inquiries.ask(agent, from: nil).wait())
        #expect(questions.promises.count == 1)
        loop.advanceTime(by: .milliseconds(1))
        _ = inquiries.ask(agent, from: nil)
        #expect(questions.promises.count == 2)
        questions.promises[1].succeed(false)
        _ = inquiries.ask(agent, from: nil)
        #expect(questions.promises.count == 3)
        questions.promises[2].fail(ChannelError.eof)
        _ = inquiries.ask(agent, from: nil)
        #expect(questions.promises.count == 4)
        questions.promises[3].succeed(true)
    }
}
