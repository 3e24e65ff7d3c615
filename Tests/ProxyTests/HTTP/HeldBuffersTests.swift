import NIOCore
import NIOEmbedded
import Proxy
import Testing

/// The TLS handler and the sockets read into a buffer that they use again if nobody holds it: who keeps a slice of it makes them copy.
@Suite struct HeldBuffersTests {
    /// Whether somebody else holds the buffer's memory: then a write to it goes elsewhere.
    private func isHeld(_ buffer: inout ByteBuffer) -> Bool {
        func address() -> UnsafeRawPointer? { buffer.withUnsafeReadableBytes { $0.baseAddress } }
        let before = address()
        buffer.setInteger(UInt8(0), at: buffer.readerIndex)
        return address() != before
    }

    /// Text in a buffer with room, as they are read.
    private func read(_ text: String) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: 4096)
        buffer.writeString(text)
        return buffer
    }

    @Test("a connection at rest holds nothing of the request that it has carried, nor its upstream of the answer")
    func keepAlive() throws {
        let proxy = try EmbeddedProxy()
        for method in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 5\r\n"] {
            var request = read("\(method)Host: app.example.com\r\n\r\n" + (method.hasPrefix("POST") ? "hello" : ""))
            try proxy.client.writeInbound(request)
            _ = try proxy.forwarded()
            #expect(isHeld(&request))
            request = read("")
            var answer = read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            try proxy.upstream().writeInbound(answer)
            proxy.loop.run()
            #expect(try proxy.received().hasSuffix("ok"))
            #expect(!isHeld(&answer))
        }
        var request = read("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        try proxy.client.writeInbound(request)
        _ = try proxy.forwarded()
        try proxy.respond("HTTP/1.1 204 No Content\r\n\r\n")
        proxy.loop.run()
        _ = try proxy.received()
        #expect(!isHeld(&request))
    }

    @Test("a WebSocket holds neither the buffer of its request nor that of the answer")
    func webSocket() throws {
        let proxy = try EmbeddedProxy()
        var request = read(UpgradeTests.handshake)
        var answer = read(UpgradeTests.accept)
        try proxy.client.writeInbound(request)
        _ = try proxy.forwarded()
        try proxy.upstream().writeInbound(answer)
        proxy.loop.run()
        #expect(try proxy.received().hasPrefix("HTTP/1.1 101 "))
        #expect(!isHeld(&request))
        #expect(!isHeld(&answer))
        var message = read("message")
        try proxy.client.writeInbound(message)
        #expect(try proxy.forwarded() == "message")
        #expect(!isHeld(&message))
    }
}
