import Inet
import Noise
import Testing
import WGUserspace

@Suite struct CookieJarTests {
    /// What a responder under load answers to a handshake message.
    private func reply(to message: [UInt8], cookie: Cookie, from key: PublicKey) throws -> [UInt8] {
        var reply = [UInt8](repeating: 0, count: HandshakeMessage.cookieReplyByteCount)
        let index = message.span.bytes.littleEndian32(at: 4)
        guard let mac1 = MAC(message.span.bytes, at: message.count - MACKeys.trailerByteCount) else { throw NoMAC() }
        reply.withSpan {
            cookie.writeReply(into: &$0, receiverIndex: index, mac1: mac1, keys: MACKeys(publicKey: key), random: .seeded(8))
        }
        return reply
    }

    private struct NoMAC: Error {}

    private let cookie = Cookie(source: [192, 0, 2, 1, 0xCA, 0x6C].span.bytes, secret: SecretBytes(count: 32))

    private func isValid(_ message: [UInt8]) -> Bool { cookie.isValidMAC2(message: message.span.bytes) }

    @Test("a cookie is used in the following messages for 120 s, and its reply does not move the endpoint")
    func use() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        let first = try #require(nodes.sent(1, by: nodes.a).last).bytes
        #expect(!isValid(first))
        let reply = try reply(to: first, cookie: cookie, from: nodes.b.publicKey)
        let elsewhere = SocketEndpoint(IPAddress(v4: 203, 0, 113, 1), port: 1)
        #expect(nodes.deliver(reply, to: nodes.a, from: elsewhere) == .handled)
        #expect(try nodes.a.status().endpoint == nodes.b.endpoint)
        let receivedAt = nodes.now

        for number in UInt32(2)..<40 {
            nodes.send(number, from: nodes.a)
            nodes.advance(by: .seconds(5))
        }
        let later = Array(zip(nodes.times(by: nodes.a) { $0.type == 1 }, nodes.sent(1, by: nodes.a)).dropFirst())
        #expect(later.count > 20)
        for (time, message) in later {
            #expect(isValid(message.bytes) == (time < receivedAt + .seconds(120)), "after \(time - receivedAt)")
        }
        // mac2 changes nothing for a responder that does not ask for it.
        #expect(nodes.deliver(try #require(later.first).1.bytes, to: nodes.b) == .handled)
    }

    @Test("a reply to an earlier message, or made by somebody else, is dropped")
    func foreignReplies() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        let first = try #require(nodes.sent(1, by: nodes.a).last).bytes
        let forged = try reply(to: first, cookie: cookie, from: nodes.a.publicKey)
        #expect(nodes.deliver(forged, to: nodes.a) == .dropped(.invalidCookieReply))
        let late = try reply(to: first, cookie: cookie, from: nodes.b.publicKey)
        nodes.advance(by: .seconds(6))
        #expect(nodes.deliver(late, to: nodes.a) == .dropped(.unknownReceiverIndex))
    }
}
