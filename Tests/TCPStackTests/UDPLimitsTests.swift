import Inet
import TCPStack
import TestSupport
import Testing

/// Bounds, turns, memory, and what is taken away.
@Suite struct UDPLimitsTests {
    @Test("the receive queue is bounded in datagrams: the newest is dropped and counted") func receiveDatagrams() throws {
        var configuration = StackConfiguration()
        configuration.udpReceiveDatagramsMaximum = 5
        let script = TCPScript(configuration: configuration)
        let id = try script.stack.openUDP(address: nil, port: 53)
        for number in 0..<8 { script.sendDatagram([UInt8(number)], to: 53) }
        #expect(script.stack.drops[.receiveQueueFull] == 3)
        #expect(script.receiveAll(id) == (0..<5).map { [UInt8($0)] })
        script.sendDatagram([9], to: 53)
        #expect(script.receiveAll(id) == [[9]] && script.nextPacket() == nil)
    }

    @Test("the receive queue is bounded in bytes, which the stack's account holds") func receiveBytes() throws {
        var options = UDPOptions()
        options.receiveBufferMaximum = 100_000
        let script = TCPScript()
        let id = try script.stack.openUDP(address: nil, port: 53, options: options)
        for _ in 0..<200 { script.sendDatagram(filled(1000, with: 1), to: 53) }
        #expect(script.stack.drops[.receiveQueueFull] == 100)
        #expect(script.stack.counts.bufferedBytes == 100_000 && script.stack.counts.bufferMemory >= 100_000)
        #expect(script.receiveAll(id).count == 100)
        #expect(script.stack.counts.bufferedBytes == 0)
        #expect(script.stack.brokenInvariant() == nil)
    }

    @Test("the send queue is bounded; when half of it is free the application is told, once", arguments: [true, false])
    func sendQueue(byBytes: Bool) throws {
        var configuration = StackConfiguration()
        if byBytes { configuration.udpSendBufferMaximum = 100_000 } else { configuration.udpSendDatagramsMaximum = 100 }
        let script = TCPScript(configuration: configuration)
        let id = try script.stack.openUDP(address: nil, port: 53)
        for _ in 0..<100 { #expect(try script.sendFrom(id, filled(1000, with: 1), to: script.peer)) }
        #expect(try script.sendFrom(id, [1], to: script.peer) == false)
        #expect(script.stack.counts.bufferedBytes == 100_000)
        for _ in 0..<49 { _ = script.nextPacket() }
        #expect(script.events().isEmpty)
        _ = script.nextPacket()
        #expect(script.events() == [.udpWritable(id)])
        #expect(try script.sendFrom(id, [1], to: script.peer))
        while script.nextPacket() != nil {}
        #expect(script.events().isEmpty && script.stack.counts.bufferedBytes == 0)
    }

    @Test("sockets are bounded, and a closed one makes room") func sockets() throws {
        var configuration = StackConfiguration()
        configuration.maximumUDPSockets = 3
        let script = TCPScript(configuration: configuration)
        let ids = try (0..<3).map { _ in try script.stack.openUDP(address: nil, port: nil) }
        #expect(script.stack.counts.udpSockets == 3)
        #expect(throws: StackError.tooManySockets) { try script.stack.openUDP(address: nil, port: nil) }
        script.stack.closeUDP(ids[1])
        let next = try script.stack.openUDP(address: nil, port: nil)
        #expect(next.index == ids[1].index && next.generation != ids[1].generation)
        script.stack.closeUDP(ids[1])
        #expect(script.stack.counts.udpSockets == 3)
    }

    @Test("a steady stream allocates nothing, and an idle socket gives its memory back") func memory() throws {
        let script = TCPScript()
        let id = try script.stack.openUDP(address: nil, port: 53)
        func round() throws {
            for _ in 0..<20 { script.sendDatagram(filled(1000, with: 1), to: 53) }
            for _ in 0..<20 { try script.sendFrom(id, filled(1000, with: 1), to: script.peer) }
            #expect(script.receiveAll(id).count == 20)
            while script.nextPacket() != nil {}
            _ = script.events()
        }
        try round()
        let memory = script.stack.counts.bufferMemory
        #expect(memory > 0)
        for _ in 0..<500 {
            try round()
            script.advance(by: .milliseconds(100))
            #expect(script.stack.counts.bufferMemory == memory)
        }
        script.advance(by: .seconds(3))
        #expect(script.stack.counts.bufferMemory == 0)
        #expect(script.stack.nextDeadline == nil)
    }

    @Test("what was sent leaves after a close, and the port is free at once") func close() throws {
        let script = TCPScript()
        let id = try script.stack.openUDP(address: nil, port: 53)
        script.sendDatagram([1], to: 53)
        try script.sendFrom(id, [2], to: script.peer)
        script.stack.closeUDP(id)
        #expect(script.events().isEmpty)
        let next = try script.stack.openUDP(address: nil, port: 53)
        #expect(script.nextDatagram()?.data == [2])
        #expect(script.stack.counts.udpSockets == 1 && script.stack.counts.bufferedBytes == 0)
        script.stack.closeUDP(next)
        #expect(script.stack.tableEntries == 0 && script.stack.counts.bufferMemory == 0)
    }

    @Test("sockets have turns of 32 datagrams") func turns() throws {
        let script = TCPScript()
        let ids = try (0..<3).map { try script.stack.openUDP(address: nil, port: UInt16(100 + $0)) }
        for id in ids {
            for _ in 0..<70 { try script.sendFrom(id, [1], to: script.peer) }
        }
        var ports: [UInt16] = []
        while let datagram = script.nextDatagram() { ports.append(datagram.source.port) }
        let expected = [(100, 32), (101, 32), (102, 32), (100, 32), (101, 32), (102, 32), (100, 6), (101, 6), (102, 6)]
        #expect(ports == expected.flatMap { [UInt16](repeating: UInt16($0.0), count: $0.1) })
    }

    @Test("TCP and UDP share the line: neither waits for more than a turn of the other") func fairness() throws {
        let script = TCPScript()
        let connection = try #require(script.establish(options: TCPScript.sack(1000, scale: 7)))
        let id = try script.stack.openUDP(address: nil, port: 53)
        for _ in 0..<1000 { try script.sendFrom(id, [1], to: script.peer) }
        // ACKs open the congestion window while datagrams wait.
        script.write(connection, filled(200_000, with: 1))
        var acknowledged: UInt32 = 5001
        var (tcp, udp, longestTCP, longestUDP, run) = (0, 0, 0, 0, 0)
        var wasUDP: Bool?
        while udp < 500, let packet = script.nextPacket() {
            let segment = TCPScript.parse(packet)
            let isUDP = segment == nil
            run = wasUDP == isUDP ? run + 1 : 1
            wasUDP = isUDP
            if isUDP {
                udp += 1
                longestUDP = max(longestUDP, run)
            } else {
                tcp += 1
                longestTCP = max(longestTCP, run)
                acknowledged &+= UInt32(segment?.text.count ?? 0)
                script.write(connection, filled(2000, with: 1))
                script.now += .microseconds(100)
                script.send(.ack, seq: 1001, ack: acknowledged, window: 65_535)
            }
        }
        #expect(tcp >= 400, "\(tcp) segments beside \(udp) datagrams")
        #expect(longestTCP <= 32 && longestUDP <= 64, "\(longestTCP) segments and \(longestUDP) datagrams in a row")
    }

    @Test("a removed peer takes along its sockets, and its datagrams in those of others") func purge() throws {
        let script = TCPScript()
        let other = SocketEndpoint(IPAddress(v4: 10, 1, 0, 7), port: 9)
        let connected = try script.stack.openUDP(address: nil, port: nil, remote: script.peer)
        let open = try script.stack.openUDP(address: nil, port: 53)
        for number in 0..<6 {
            let remote = number % 2 == 0 ? script.peer : other
            script.sendDatagram([UInt8(number)], to: 53, from: remote)
            try script.sendFrom(open, [UInt8(number)], to: remote)
        }
        try script.sendFrom(connected, [9])
        script.stack.purge(remote: [IPPrefix(host: script.remote)], now: script.now)
        #expect(script.stack.drops[.purgedDatagram] == 7)
        #expect(script.events() == [.datagrams(open), .udpClosed(connected)])
        #expect(script.receiveAll(open) == [[1], [3], [5]])
        for number in [1, 3, 5] { #expect(script.nextDatagram()?.data == [UInt8(number)]) }
        #expect(script.nextPacket() == nil)
        #expect(throws: StackError.noSuchSocket) { try script.sendFrom(connected, [1]) }
        #expect(script.stack.counts.udpSockets == 1 && script.stack.counts.bufferedBytes == 0)
        #expect(script.stack.brokenInvariant() == nil)
    }

    @Test("a sender that waits for room hears of it when a removed peer makes room") func purgeMakesRoom() throws {
        let script = TCPScript()
        let id = try script.stack.openUDP(address: nil, port: 53)
        while try script.sendFrom(id, filled(1000, with: 1), to: script.peer) {}
        script.stack.purge(remote: [IPPrefix(host: script.remote)], now: script.now)
        #expect(script.events() == [.udpWritable(id)])
        #expect(script.stack.counts.bufferedBytes == 0 && script.nextPacket() == nil)
    }

    @Test("an address that is no longer ours takes along its sockets and datagrams") func addressGone() throws {
        let script = TCPScript()
        let second = IPAddress(v4: 10, 1, 0, 9)
        script.stack.setAddresses([script.local, second], now: script.now)
        let bound = try script.stack.openUDP(address: second, port: 53)
        let any = try script.stack.openUDP(address: nil, port: 54)
        try script.sendFrom(any, [1], to: script.peer, from: second)
        try script.sendFrom(any, [2], to: script.peer)
        script.stack.setAddresses([script.local], now: script.now)
        #expect(script.events() == [.udpClosed(bound)])
        #expect(script.nextDatagram()?.data == [2])
        #expect(script.nextPacket() == nil)
        _ = try script.stack.openUDP(address: nil, port: 53)
    }
}
