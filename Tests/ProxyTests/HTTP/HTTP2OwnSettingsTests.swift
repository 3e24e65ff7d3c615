import NIOCore
import NIOEmbedded
import Proxy
import Testing

@Suite struct HTTP2OwnSettingsTests {
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    private static let settings: [UInt8] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0]
    private static let acknowledgement: [UInt8] = [0, 0, 0, 4, 1, 0, 0, 0, 0]
    private static let headers: [UInt8] = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84]
    private static let ping: [UInt8] = [0, 0, 8, 6, 0, 0, 0, 0, 0] + [UInt8](0..<8)

    /// What comes out of the handler, and whether it has left.
    private static func passed(_ pieces: [some Collection<UInt8>]) throws -> (bytes: [UInt8], hasLeft: Bool) {
        let channel = EmbeddedChannel()
        try channel.pipeline.syncOperations.addHandler(HTTP2OwnSettings())
        for piece in pieces { try channel.writeInbound(ByteBuffer(bytes: piece)) }
        var bytes: [UInt8] = []
        while let buffer = try channel.readInbound(as: ByteBuffer.self) { bytes += buffer.readableBytesView }
        let hasLeft = (try? channel.pipeline.syncOperations.handler(type: HTTP2OwnSettings.self)) == nil
        _ = try? channel.finish()
        return (bytes, hasLeft)
    }

    @Test("an acknowledgement comes behind the first SETTINGS, the client's own does not come, wherever the bytes are cut")
    func cuts() throws {
        let before = Self.preface + Self.settings
        let sent = before + Self.headers + Self.ping + Self.acknowledgement + Self.ping + Self.settings + Self.acknowledgement
        let expected = before + Self.acknowledgement + Self.headers + Self.ping + Self.ping + Self.settings + Self.acknowledgement
        for cut in 0...sent.count {
            let (bytes, hasLeft) = try Self.passed([sent[..<cut], sent[cut...]])
            #expect(bytes == expected && hasLeft, "cut at \(cut)")
        }
        let (bytes, hasLeft) = try Self.passed(sent.map { [$0] })
        #expect(bytes == expected && hasLeft)
    }

    @Test("it is there before the request that follows has come")
    func atOnce() throws {
        let (bytes, hasLeft) = try Self.passed([Self.preface + Self.settings])
        #expect(bytes == Self.preface + Self.settings + Self.acknowledgement && !hasLeft)
    }

    @Test("SETTINGS without settings count, too")
    func empty() throws {
        let empty: [UInt8] = [0, 0, 0, 4, 0, 0, 0, 0, 0]
        #expect(try Self.passed([Self.preface + empty + Self.headers]).bytes == Self.preface + empty + Self.acknowledgement + Self.headers)
    }

    @Test(
        "what is wrong goes through as it is",
        arguments: [
            preface + headers + settings + acknowledgement, preface + acknowledgement + settings,
            preface + [0, 0, 0, 4, 0, 0, 0, 0, 1] + acknowledgement,
        ])
    func wrongBegin(sent: [UInt8]) throws {
        let (bytes, hasLeft) = try Self.passed([sent])
        #expect(bytes == sent && hasLeft)
    }

    @Test("an acknowledgement with a payload, or on a stream, is none")
    func wrongAcknowledgement() throws {
        let before = Self.preface + Self.settings
        for wrong: [UInt8] in [[0, 0, 1, 4, 1, 0, 0, 0, 0, 7], [0, 0, 0, 4, 1, 0, 0, 0, 3]] {
            let (bytes, hasLeft) = try Self.passed([before + wrong + Self.acknowledgement + Self.ping])
            #expect(bytes == before + Self.acknowledgement + wrong + Self.ping && hasLeft)
        }
    }
}
