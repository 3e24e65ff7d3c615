import Inet
import Noise
import TCPStack
import Vectors
import WGUserspace

/// What a fuzzer feeds with bytes. None may trap, hang or grow, whatever comes.
public enum FuzzTarget: String, CaseIterable, Sendable {
    /// Handshake messages and cookie replies, as the parsers get them.
    case messages
    /// A device with a live session: datagrams, inner packets, changes and time, as a script.
    case device
    /// The text protocol of `wg`.
    case uapi
    /// wg-quick files.
    case wgquick
    /// Test-vector files.
    case vectors
    /// Noise handshakes of any pattern, read from bytes.
    case noise
    /// A TCP/IP stack with a live connection: segments, errors, fragments, time and an application, as a script.
    case stack
    /// Headers and options of IP, TCP and ICMP.
    case headers
    /// Requests and responses of HTTP/1.1, beside NIO's decoder.
    case http1
    /// Header blocks of HTTP/2 that become requests of HTTP/1.1.
    case http2fields
    /// A connection of HTTP/2 with its upstreams: frames, answers, time and sockets, as a script.
    case http2
    /// Documents of an ACME server, alone and as the answers to an order.
    case acme
    /// Answers of a mail server, alone and to the submission of a mail.
    case smtp
    /// Messages of the DNS, their signatures, and the XML of a provider of zones.
    case dns

    public func run(_ bytes: [UInt8]) {
        switch self {
        case .messages: Self.parseMessage(bytes)
        case .device:
            var script = DeviceScript(bytes)
            script.run()
        case .uapi: Self.parseUAPI(bytes)
        case .wgquick: _ = try? WGQuickFile(bytes.span.bytes)
        case .vectors: _ = VectorRunner.run(bytes) { _, _ in }
        case .noise: Self.readNoise(bytes)
        case .stack:
            var script = StackScript(bytes)
            script.run()
        case .headers: Self.parseHeaders(bytes)
        case .http1: HTTP1Script(bytes).run()
        case .http2fields: HTTP2FieldsScript(bytes).run()
        case .http2: HTTP2Script.run(bytes)
        case .acme: ACMEScript(bytes).run()
        case .smtp: SMTPScript(bytes).run()
        case .dns: DNSScript(bytes).run()
        }
    }

    private static func parseMessage(_ bytes: [UInt8]) {
        let message = bytes.span.bytes
        _ = Message.classify(message)
        let key = PrivateKey.generate(using: .seeded(1))
        let keys = MACKeys(publicKey: key.publicKey)
        _ = keys.isValidMAC1(message: message)
        _ = TAI64N(message)
        if let mac1 = MAC(message) { _ = Cookie(reply: message, mac1: mac1, keys: keys) }
        _ = IPHeader.routing(of: message)
        _ = try? IPHeader(parsing: message)
        guard var handshake = try? ResponderHandshake.receive(initiation: message, staticKey: key, staticPublic: key.publicKey) else {
            return
        }
        _ = try? handshake.openTimestamp(precomputedStaticStatic: SecretBytes(count: 32))
    }

    /// What was parsed and written parses as the same.
    private static func parseHeaders(_ bytes: [UInt8]) {
        let span = bytes.span.bytes
        if let ip = try? IPHeader(parsing: span) {
            precondition(ip.headerLength <= ip.totalLength && ip.totalLength <= bytes.count, "a header longer than its packet")
        }
        for family in [IPAddress.Family.v4, .v6] { _ = ICMPMessage(parsing: span, family: family) }
        if let quoted = ICMPMessage.quotedSegment(in: span) { precondition(quoted.local.address.family == quoted.remote.address.family) }
        if let header = TCPHeader(parsing: span) {
            precondition((TCPHeader.minimumLength...min(60, bytes.count)).contains(header.headerLength), "a header longer than its segment")
            parseOptions(span.extracting(TCPHeader.minimumLength..<header.headerLength))
        }
        parseOptions(span.extracting(0..<min(40, bytes.count)))
    }

    private static func parseOptions(_ area: RawSpan) {
        let options = TCPOptions(parsing: area)
        precondition(options.sack.count <= 4, "more blocks than fit")
        // Not everything that can be read at once can be written at once.
        guard options.encodedLength <= 40 else { return }
        var written = [UInt8](repeating: 0, count: 40)
        do {
            var span = written.mutableSpan
            var bytes = span.mutableBytes
            options.write(into: &bytes, at: 0)
        }
        let again = TCPOptions(parsing: written.span.bytes.extracting(0..<options.encodedLength))
        precondition(again.maximumSegmentSize == options.maximumSegmentSize && again.windowScale == options.windowScale)
        precondition(again.isSACKPermitted == options.isSACKPermitted && again.timestamps == options.timestamps)
        precondition(again.sack.count == options.sack.count, "blocks were lost")
        for index in 0..<options.sack.count { precondition(again.sack[index] == options.sack[index], "a block has changed") }
    }

    /// The first byte says how the text is cut.
    private static func parseUAPI(_ bytes: [UInt8]) {
        guard let first = bytes.first else { return }
        var parser = UAPI.Parser()
        var rest = bytes.dropFirst()
        while !rest.isEmpty {
            let piece = Array(rest.prefix(max(1, Int(first))))
            rest = rest.dropFirst(piece.count)
            var offset = 0
            while offset < piece.count {
                let before = offset
                switch parser.receive(piece.span.bytes, from: &offset) {
                case .closed: return
                case .request(.set(let request)): _ = request.text()
                case .request(.get), .refused, nil: break
                }
                if offset == before { break }
            }
        }
        _ = try? UAPI.State(answer: Array(bytes.dropFirst()).span.bytes)
    }

    /// The first byte chooses the pattern, then messages come with two bytes of length each.
    private static func readNoise(_ bytes: [UInt8]) {
        guard let first = bytes.first else { return }
        let name = HandshakePattern.names[Int(first) % HandshakePattern.names.count]
        let modifier = ["", "psk0", "psk1"][Int(first) / HandshakePattern.names.count % 3]
        guard let noise = try? NoiseProtocol("Noise_\(name)\(modifier)_25519_\(first.isMultiple(of: 2) ? "ChaChaPoly" : "AESGCM")_SHA256")
        else { return }
        let random = RandomSource.seeded(7)
        let remote = PrivateKey.generate(using: random).publicKey
        let psk = [UInt8](repeating: 1, count: 32 * noise.pattern.presharedKeyCount)
        guard
            var state = try? HandshakeState(
                noise, role: .responder, staticKey: .generate(using: random), remoteStatic: remote, presharedKeys: psk.span.bytes,
                random: random)
        else { return }
        var rest = bytes.dropFirst()
        while rest.count >= 2, !state.isFinished, !state.isDead {
            let length = min(rest.count - 2, Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1]))
            var message = Array(rest.dropFirst(2).prefix(length))
            rest = rest.dropFirst(2 + length)
            if state.isOurTurn {
                var output = [UInt8](repeating: 0, count: message.count + state.overhead)
                var span = output.mutableSpan
                var raw = span.mutableBytes
                _ = try? state.writeMessage(payload: message.span.bytes, into: &raw)
            } else {
                var span = message.mutableSpan
                var raw = span.mutableBytes
                _ = try? state.readMessage(&raw)
            }
        }
    }
}
