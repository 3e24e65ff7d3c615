import Inet
import TCPStack
import TestSupport
import Testing

/// ICMP errors about datagrams, both ways.
@Suite struct UDPErrorTests {
    @Test("a port without a socket is answered by port unreachable, which ends at the sender's socket", arguments: UDPTests.families)
    func closedPort(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        script.sendDatagram([1, 2, 3], to: 53)
        #expect(script.stack.drops[.noSocket] == 1)
        let error = try #require(script.nextPacket())
        // The same stack in the sender's place.
        let sender = TCPScript(family: family)
        sender.stack.setAddresses([script.remote], now: sender.now)
        let id = try sender.stack.openUDP(address: nil, port: script.remotePort, remote: SocketEndpoint(script.local, port: 53))
        sender.inject(error)
        #expect(
            sender.events() == [.udpError(id, UDPFailure(reason: .unreachable, remote: SocketEndpoint(script.local, port: 53)))])
        #expect(sender.stack.drops.total == 0)
    }

    @Test("an error reaches a socket without a fixed remote too; the last one of several is told", arguments: UDPTests.families)
    func kinds(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: 1000)
        try script.sendFrom(id, [1], to: script.peer)
        let quoted = try #require(script.nextPacket())
        let isFour = family == .v4
        func inject(_ type: UInt8, _ code: UInt8, _ rest: UInt32) {
            script.inject(icmpError(type: type, code: code, rest: rest, quoting: quoted, from: script.remote, to: script.local))
        }
        inject(isFour ? 3 : 1, isFour ? 3 : 4, 0)
        inject(isFour ? 3 : 1, isFour ? 1 : 0, 0)
        #expect(script.events() == [.udpError(id, UDPFailure(reason: .temporary, remote: script.peer))])
        inject(isFour ? 3 : 2, isFour ? 4 : 0, 1300)
        #expect(script.events() == [.udpError(id, UDPFailure(reason: .packetTooBig(mtu: 1300), remote: script.peer))])
        #expect(try script.sendFrom(id, [1], to: script.peer))
    }

    @Test("an error that quotes no socket, another remote, or another address of ours is dropped") func unmatched() throws {
        let script = TCPScript()
        let connected = try script.stack.openUDP(address: nil, port: 1000, remote: script.peer)
        let other = SocketEndpoint(script.remote, port: 7)
        let foreign = SocketEndpoint(IPAddress(v4: 10, 1, 0, 200), port: 1000)
        for (from, to) in [
            (SocketEndpoint(script.local, port: 1001), script.peer), (SocketEndpoint(script.local, port: 1000), other),
            (foreign, script.peer),
        ] {
            let quoted = TCPScript.datagram(from: from, to: to, [1])
            script.inject(icmpError(type: 3, code: 3, rest: 0, quoting: quoted, from: script.remote, to: script.local))
        }
        #expect(script.stack.drops[.unmatchedError] == 3 && script.events().isEmpty)
        // Cut off within the UDP header; a later fragment.
        let own = TCPScript.datagram(from: SocketEndpoint(script.local, port: 1000), to: script.peer, [1])
        script.inject(icmpError(type: 3, code: 3, rest: 0, quoting: Array(own[..<27]), from: script.remote, to: script.local))
        var fragment = own
        fragment[7] = 1
        script.inject(icmpError(type: 3, code: 3, rest: 0, quoting: fragment, from: script.remote, to: script.local))
        #expect(script.stack.drops[.unmatchedError] == 5 && script.events().isEmpty)
        script.inject(icmpError(type: 3, code: 3, rest: 0, quoting: Array(own[..<28]), from: script.remote, to: script.local))
        #expect(script.events() == [.udpError(connected, UDPFailure(reason: .unreachable, remote: script.peer))])
    }
}
