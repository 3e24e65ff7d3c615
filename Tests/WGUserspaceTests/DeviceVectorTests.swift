import Inet
import Noise
import TestSupport
import Testing
import WGUserspace

/// A device against the messages of `vectors/wireguard.json`.
@Suite struct DeviceVectorTests {
    struct Vector: Sendable, CustomTestStringConvertible {
        let json: JSONValue
        var testDescription: String { (try? json["name"].string) ?? "unnamed" }

        static func all() throws -> [Vector] { try VectorFile("wireguard").root["handshakes"].array.map { Vector(json: $0) } }

        let now = Instant(nanoseconds: 1_000_000_000_000)
        let remote = SocketEndpoint(IPAddress(v4: 192, 0, 2, 10), port: 51821)

        func key(_ side: String) throws -> PrivateKey {
            guard let key = PrivateKey(base64: try json[side]["static_private_base64"].string) else { throw NotAKey() }
            return key
        }

        private static func presharedKey(_ bytes: [UInt8]) throws -> StoredPresharedKey {
            guard let key = PresharedKey(bytes.span.bytes) else { throw NotAKey() }
            return StoredPresharedKey(key)
        }

        /// The device of one side, which draws the vector's index and ephemeral key and allows the other one everything.
        func device(_ side: String, peer: String) throws -> Device {
            let index = try json[side]["index"].uint32
            let indexBytes = (0..<8).map { $0 < 4 ? UInt8(truncatingIfNeeded: index >> UInt32($0 * 8)) : 0 }
            var device = Device(
                privateKey: try key(side), configuration: DeviceConfiguration(),
                random: .giving(indexBytes + (try json[side]["ephemeral_private"].hex)))
            var presharedKey: StoredPresharedKey?
            if json["psk"] != .null {
                presharedKey = try Self.presharedKey(json["psk"].hex)
            }
            let all = try ["0.0.0.0/0", "::/0"].map { try #require(IPPrefix($0)) }
            device.setPeer(
                PeerConfiguration(
                    publicKey: try key(peer).publicKey, presharedKey: presharedKey, endpoint: remote, allowedIPs: all), now: now)
            return device
        }
    }

    struct NotAKey: Error {}

    private func receive(_ message: [UInt8], _ device: inout Device, _ vector: Vector) -> (ReceiveResult, [UInt8]) {
        var message = message
        // The day of the vector's timestamp; one that is days ahead is not kept.
        let label = (try? vector.json["timestamp"]["tai64n"].hex).flatMap { TAI64N($0.span.bytes) }
        let wallTime = label?.wallTime ?? WallTime(seconds: 1_700_000_000)
        var result = message.withSpan { device.receive(&$0, from: vector.remote, now: vector.now, wallTime: wallTime) }
        if result == .queued { result = device.handleQueuedHandshake(now: vector.now, wallTime: wallTime) ?? result }
        return (result, message)
    }

    private func poll(_ device: inout Device, _ vector: Vector) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0xEE, count: 2048)
        let transmit = buffer.withSpan {
            device.pollTransmit(into: &$0, at: 0, now: vector.now, wallTime: WallTime(seconds: 1_700_000_000))
        }
        return transmit.map { Array(buffer[$0.range]) }
    }

    @Test("a responder answers with the vector's response, opens its packets and seals the same datagrams", arguments: try Vector.all())
    func responder(vector: Vector) throws {
        var device = try vector.device("responder", peer: "initiator")
        #expect(receive(try vector.json["initiation"].hex, &device, vector).0 == .handled)
        #expect(try poll(&device, vector) == vector.json["response"].hex)
        let peer = try #require(device.peerIDs.first)
        let label = try vector.json["timestamp"]["tai64n"].hex
        let accepted = device.status(of: peer)?.lastTimestamp
        let isAccepted = accepted == TAI64N(label.span.bytes)
        #expect(isAccepted)

        for step in try vector.json["packets"].array {
            let packet = try step["packet"].hex
            let datagram = try step["datagram"].hex
            if try step["sender"].string == "initiator" {
                let (result, bytes) = receive(datagram, &device, vector)
                if packet.isEmpty {
                    #expect(result == .handled)
                } else {
                    guard case .packet(let range, from: let from) = result else {
                        Issue.record("\(step["note"]): \(result)")
                        continue
                    }
                    #expect(from == peer)
                    #expect(Array(bytes[range]) == packet)
                }
                continue
            }
            device.configuration.mtu = try step["mtu"].int
            device.setSendCounter(try step["counter"].integer, of: peer)
            guard !packet.isEmpty else { continue }
            var buffer = [UInt8](repeating: 0xEE, count: packet.count + 64)
            buffer.replaceSubrange(16..<16 + packet.count, with: packet)
            let result = buffer.withSpan { device.send(16..<16 + packet.count, in: &$0, now: vector.now) }
            guard case .datagram(let transmit) = result else {
                Issue.record("\(step["note"]): \(result)")
                continue
            }
            #expect(transmit.endpoint == vector.remote && transmit.peer == peer)
            #expect(Array(buffer[transmit.range]) == datagram, "\(step["note"])")
        }
    }

    @Test("messages that must be rejected are, on both sides, and counted under their reason", arguments: try Vector.all())
    func mustReject(vector: Vector) throws {
        var responder = try vector.device("responder", peer: "initiator")
        var initiator = try vector.device("initiator", peer: "responder")
        initiator.initiateHandshake(with: try #require(initiator.peerIDs.first), now: vector.now)
        #expect(poll(&initiator, vector)?.count == 148)
        for step in try vector.json["must_reject"].array {
            let message = try step["message"].hex
            let why = try step["why"].string
            let isToResponder = try step["to"].string == "responder"
            let result = isToResponder ? receive(message, &responder, vector).0 : receive(message, &initiator, vector).0
            let reason: DropReason =
                switch why {
                case "mac1 is wrong", "sender index is not authenticated by the AEAD, only by mac1": .invalidMAC1
                case "a reserved byte is not zero (mac1 valid)": .unknownType
                case "one byte short", "one byte long": .wrongLength
                case "ephemeral is a low-order point (mac1 valid)": .lowOrderPoint
                case "authentic, but from an unknown static key": .unknownPeer
                case "receiver index is unknown (mac1 valid)": .unknownReceiverIndex
                default: .handshakeNotAuthentic
                }
            #expect(result == .dropped(reason), "\(why)")
        }
        let count = try vector.json["must_reject"].array.count
        #expect(responder.drops.total + initiator.drops.total == UInt64(count))
        #expect(poll(&responder, vector) == nil)
        // Nothing of it harms: the true initiation is still answered.
        #expect(receive(try vector.json["initiation"].hex, &responder, vector).0 == .handled)
    }

    @Test("a cookie reply that answers our response is opened once, and forged or repeated ones are dropped", arguments: try Vector.all())
    func cookieReply(vector: Vector) throws {
        var device = try vector.device("responder", peer: "initiator")
        _ = receive(try vector.json["initiation"].hex, &device, vector)
        #expect(poll(&device, vector) != nil)
        let reply = try vector.json["cookie"]["reply_to_response"].hex
        for offset in stride(from: 8, to: 64, by: 7) {
            #expect(receive(reply.flipping(bit: 1, at: offset), &device, vector).0 == .dropped(.invalidCookieReply))
        }
        #expect(receive(reply, &device, vector).0 == .handled)
        #expect(device.counters.cookiesReceived == 1)
        #expect(receive(reply, &device, vector).0 == .dropped(.invalidCookieReply))
        #expect(receive(try vector.json["cookie"]["reply_to_initiation"].hex, &device, vector).0 == .dropped(.unknownReceiverIndex))
    }
}
