import Inet

/// UDP sockets: opened, closed, sent on and received from. Source: RFC 768, RFC 1122 §4.1, RFC 8200 §8.1, RFC 8085.
extension Stack {
    /// Opens a UDP socket.
    /// - Parameters:
    ///   - address: one of ours, or `nil` for any of ours, IPv4 and IPv6.
    ///   - port: 1 to 65,535; `nil` takes a random one that no other UDP socket has (RFC 6056).
    ///   - remote: the only end that is heard and spoken to; `nil` is any. `address` is then fixed, to the first of ours of its family if
    ///     none is given.
    /// - Throws: `.addressNotAvailable`, `.invalidRemote`, `.portInUse`, `.portsExhausted`, `.tooManySockets`.
    public mutating func openUDP(
        address: IPAddress?, port: UInt16?, remote: SocketEndpoint? = nil, options: UDPOptions = UDPOptions()
    ) throws(StackError) -> UDPSocketID {
        var address = address
        if let remote {
            guard isValidUDPRemote(remote) else { throw .invalidRemote }
            address = address ?? addresses.first { $0.family == remote.address.family }
            guard address?.family == remote.address.family else { throw .addressNotAvailable }
        }
        if let address, !addresses.contains(address) { throw .addressNotAvailable }
        guard port != 0 else { throw .addressNotAvailable }
        guard udp.sockets.count < configuration.maximumUDPSockets else { throw .tooManySockets }
        let number: UInt16
        if let port {
            for handle in udp.byPort[port, default: []] {
                let index = Int(handle.index)
                if udp.sockets[index].address == address, udp.sockets[index].remote == remote { throw .portInUse }
            }
            number = port
        } else {
            number = try unusedUDPPort()
        }
        let handle = udp.sockets.insert(
            UDPSocket(
                address: address, port: number, remote: remote, hopLimit: options.hopLimit, trafficClass: options.trafficClass,
                incoming: DatagramQueue(
                    maximumBytes: options.receiveBufferMaximum ?? configuration.udpReceiveBufferMaximum,
                    maximumDatagrams: configuration.udpReceiveDatagramsMaximum),
                outgoing: DatagramQueue(
                    maximumBytes: options.sendBufferMaximum ?? configuration.udpSendBufferMaximum,
                    maximumDatagrams: configuration.udpSendDatagramsMaximum)))
        udp.byPort[number, default: []].append(handle)
        return UDPSocketID(index: handle.index, generation: handle.generation)
    }

    /// Closes a socket. What has been sent still leaves; what was not received is gone. The ID is dead, and no event follows.
    public mutating func closeUDP(_ id: UDPSocketID) {
        guard let index = udp.sockets.index(of: Slab<UDPSocket>.Handle(index: id.index, generation: id.generation)) else { return }
        switch udp.sockets[index].life {
        case .open:
            leaveUDPPort(index)
            udp.sockets[index].life = .lingering
            udp.sockets[index].events = []
            udp.sockets[index].incoming.releaseAll()
            if udp.sockets[index].outgoing.isEmpty { releaseUDP(index) } else { settleUDP(index) }
        case .lingering: break
        case .ended: releaseUDP(index)
        }
    }

    /// Queues one datagram to be sent, as one unfragmented packet (RFC 8085 §3.2).
    /// - Parameters:
    ///   - bytes: the data; may be empty. At most `maximumUDPPayload` of the family.
    ///   - remote: where to; `nil` is the socket's fixed remote.
    ///   - source: one of our addresses; `nil` is the socket's, or the first of the family if it has none.
    /// - Returns: `false` if the queue is full: nothing was taken, and `.udpWritable` follows when half of it is free.
    /// - Throws: `.noSuchSocket`; `.messageTooLarge`; `.invalidRemote`, also for another remote than the fixed one;
    ///   `.addressNotAvailable`.
    public mutating func sendUDP(
        _ id: UDPSocketID, _ bytes: RawSpan, to remote: SocketEndpoint? = nil, from source: IPAddress? = nil, now: Instant
    ) throws(StackError) -> Bool {
        guard let index = udpIndex(of: id) else { throw .noSuchSocket }
        let fixed = udp.sockets[index].remote
        guard let remote = remote ?? fixed, fixed == nil || fixed == remote, isValidUDPRemote(remote) else { throw .invalidRemote }
        let bound = udp.sockets[index].address
        let family = remote.address.family
        guard let local = bound ?? source ?? addresses.first(where: { $0.family == family }), local.family == family,
            source == nil || source == local, addresses.contains(local)
        else { throw .addressNotAvailable }
        let limit = maximumUDPPayload(family)
        guard bytes.byteCount <= limit else { throw .messageTooLarge(limit: limit) }
        let isTaken = udp.sockets[index].outgoing.append(bytes, local: local, remote: remote)
        udp.sockets[index].isShort = !isTaken
        settleUDP(index)
        if isTaken, udp.nextSweep == nil { udp.nextSweep = now + configuration.bufferIdleTime }
        return isTaken
    }

    /// Takes the oldest datagram out.
    /// - Parameter target: what it has no room for is lost.
    /// - Returns: what came with it; `nil` if there is none now.
    /// - Throws: `.noSuchSocket`.
    public mutating func receiveUDP(_ id: UDPSocketID, into target: inout MutableRawSpan) throws(StackError) -> UDPDatagram? {
        guard let index = udpIndex(of: id) else { throw .noSuchSocket }
        guard let (record, copied) = udp.sockets[index].incoming.popFirst(into: &target, at: 0) else { return nil }
        settleUDP(index)
        return UDPDatagram(count: copied, length: record.length, source: record.remote, localAddress: record.local)
    }

    /// Bytes of the datagram that `receiveUDP` gives next; `nil` if there is none, or for a dead ID.
    public func nextUDPLength(_ id: UDPSocketID) -> Int? {
        udpIndex(of: id).flatMap { udp.sockets[$0].incoming.first?.length }
    }

    /// The address that the socket is bound to if there is one, its port, and its fixed remote if there is one; `nil` for a dead ID.
    public func udpEndpoints(of id: UDPSocketID) -> (address: IPAddress?, port: UInt16, remote: SocketEndpoint?)? {
        guard let index = udpIndex(of: id) else { return nil }
        return (udp.sockets[index].address, udp.sockets[index].port, udp.sockets[index].remote)
    }

    /// The most bytes of one datagram: what fits into the MTU (RFC 1122 §3.4 GET_MAXSIZES).
    public func maximumUDPPayload(_ family: IPAddress.Family) -> Int {
        configuration.mtu - SegmentWriter.ipHeaderLength(family) - UDPHeader.size
    }

    /// Calls `body` with every remote address that a socket is fixed to or has a datagram for or from; the same one more than once.
    package func forEachUDPRemote(_ body: (IPAddress) -> Void) {
        for index in 0..<udp.sockets.slotCount where udp.sockets.isOccupied(index) {
            if let remote = udp.sockets[index].remote { body(remote.address) }
            udp.sockets[index].incoming.forEachRemote(body)
            udp.sockets[index].outgoing.forEachRemote(body)
        }
    }

    private func isValidUDPRemote(_ remote: SocketEndpoint) -> Bool {
        remote.port != 0 && remote.address.isUnicastInsideTunnel && !addresses.contains(remote.address)
    }

    private mutating func unusedUDPPort() throws(StackError) -> UInt16 {
        ephemeralPorts.restart()
        while let port = ephemeralPorts.next() {
            if udp.byPort[port] == nil { return port }
        }
        throw .portsExhausted
    }

    private func udpIndex(of id: UDPSocketID) -> Int? {
        guard let index = udp.sockets.index(of: Slab<UDPSocket>.Handle(index: id.index, generation: id.generation)),
            udp.sockets[index].life == .open
        else { return nil }
        return index
    }
}

/// Datagrams and errors in, datagrams out.
extension Stack {
    /// - Parameters:
    ///   - payload: what follows the IP header.
    ///   - packet: all of it, for the error that quotes it.
    mutating func receiveUDP(_ payload: RawSpan, packet: RawSpan, header ip: IPHeader, now: Instant) {
        guard let header = UDPHeader(parsing: payload) else { return drops.count(.malformedDatagram) }
        let datagram = payload.extracting(0..<header.length)
        guard header.hasRightChecksum(datagram, source: ip.source, destination: ip.destination) else { return drops.count(.badChecksum) }
        let remote = SocketEndpoint(ip.source, port: header.sourcePort)
        guard let index = udpSocket(for: SocketEndpoint(ip.destination, port: header.destinationPort), remote: remote) else {
            return refuse(.port, packet, header: ip, now: now)
        }
        let data = datagram.extracting(UDPHeader.size..<header.length)
        // Datagrams may be lost; connections must not be reset for them.
        guard !isShortOfMemory, udp.sockets[index].incoming.append(data, local: ip.destination, remote: remote) else {
            return drops.count(.receiveQueueFull)
        }
        udp.sockets[index].events.insert(.datagrams)
        settleUDP(index)
        if udp.nextSweep == nil { udp.nextSweep = now + configuration.bufferIdleTime }
    }

    /// The socket that fits best.
    private func udpSocket(for local: SocketEndpoint, remote: SocketEndpoint) -> Int? {
        guard let handles = udp.byPort[local.port] else { return nil }
        var best: (index: Int, match: Int)?
        for handle in handles {
            let index = Int(handle.index)
            guard let match = udp.sockets[index].match(local: local.address, remote: remote) else { continue }
            if match > best?.match ?? -1 { best = (index, match) }
        }
        return best?.index
    }

    /// An ICMP error about a datagram from `local` to `remote`. RFC 1122 §4.1.3.3: the application hears of it.
    mutating func receiveUDPError(_ error: ICMPMessage.TransportError, local: SocketEndpoint, remote: SocketEndpoint) {
        guard addresses.contains(local.address), let index = udpSocket(for: local, remote: remote) else {
            return drops.count(.unmatchedError)
        }
        let reason: UDPFailure.Reason
        switch error {
        case .unreachable: reason = .unreachable
        case .soft: reason = .temporary
        case .packetTooBig(let mtu): reason = .packetTooBig(mtu: mtu)
        }
        udp.sockets[index].failure = UDPFailure(reason: reason, remote: remote)
        udp.sockets[index].events.insert(.failure)
        settleUDP(index)
    }

    /// The next datagram of the sockets that have some, in turns.
    mutating func pollTransmitUDP(into buffer: inout MutableRawSpan, at offset: Int) -> Range<Int>? {
        while let handle = udp.transmitQueue.first {
            guard let index = udp.sockets.index(of: handle), !udp.sockets[index].outgoing.isEmpty else {
                udp.transmitQueue.popFirst()
                udp.burst = 0
                if let index = udp.sockets.index(of: handle) { udp.sockets[index].isQueuedForTransmit = false }
                continue
            }
            if udp.burst >= Self.largestBurst {
                udp.transmitQueue.popFirst()
                udp.transmitQueue.append(handle)
                udp.burst = 0
                continue
            }
            udp.burst += 1
            let range = udp.sockets[index].writeNext(into: &buffer, at: offset)
            if udp.sockets[index].life == .lingering, udp.sockets[index].outgoing.isEmpty { releaseUDP(index) } else { settleUDP(index) }
            return range
        }
        return nil
    }

    mutating func pollUDPEvent() -> StackEvent? {
        while let handle = udp.eventQueue.first {
            if let index = udp.sockets.index(of: handle) {
                if let event = takeUDPEvent(index, UDPSocketID(index: handle.index, generation: handle.generation)) { return event }
                udp.sockets[index].isQueuedForEvents = false
            }
            udp.eventQueue.popFirst()
        }
        return nil
    }

    private mutating func takeUDPEvent(_ index: Int, _ id: UDPSocketID) -> StackEvent? {
        let events = udp.sockets[index].events
        if events.contains(.datagrams) {
            udp.sockets[index].events.remove(.datagrams)
            return .datagrams(id)
        }
        if events.contains(.writable) {
            udp.sockets[index].events.remove(.writable)
            return .udpWritable(id)
        }
        if events.contains(.failure) {
            udp.sockets[index].events.remove(.failure)
            if let failure = udp.sockets[index].failure { return .udpError(id, failure) }
        }
        guard events.contains(.closed) else { return nil }
        releaseUDP(index)
        return .udpClosed(id)
    }
}

/// The life of a socket's slot.
extension Stack {
    /// Brings the stack's own tables in line with a socket after anything has touched it.
    private mutating func settleUDP(_ index: Int) {
        let (bytes, memory) = (udp.sockets[index].heldBytes, udp.sockets[index].allocatedBytes)
        bufferedBytes += bytes - udp.sockets[index].accountedBytes
        bufferMemory += memory - udp.sockets[index].accountedMemory
        udp.sockets[index].accountedBytes = bytes
        udp.sockets[index].accountedMemory = memory
        if !udp.sockets[index].events.isEmpty, !udp.sockets[index].isQueuedForEvents {
            udp.sockets[index].isQueuedForEvents = true
            udp.eventQueue.append(udp.sockets.handle(at: index))
        }
        if !udp.sockets[index].outgoing.isEmpty, !udp.sockets[index].isQueuedForTransmit {
            udp.sockets[index].isQueuedForTransmit = true
            udp.transmitQueue.append(udp.sockets.handle(at: index))
        }
    }

    /// Addresses are gone, of ours or of others: their datagrams are dropped, and the sockets that are fixed to them end.
    mutating func dropUDP(local: (IPAddress) -> Bool = { _ in false }, remote: (IPAddress) -> Bool = { _ in false }) {
        func isGone(_ record: DatagramQueue.Record) -> Bool { local(record.local) || remote(record.remote.address) }
        for index in 0..<udp.sockets.slotCount where udp.sockets.isOccupied(index) {
            let count = udp.sockets[index].incoming.removeAll(where: isGone) + udp.sockets[index].outgoing.removeAll(where: isGone)
            drops.count(.purgedDatagram, times: count)
            if udp.sockets[index].incoming.isEmpty { udp.sockets[index].events.remove(.datagrams) }
            if let failure = udp.sockets[index].failure, remote(failure.remote.address) { udp.sockets[index].events.remove(.failure) }
            let ends = (udp.sockets[index].address.map(local) ?? false) || (udp.sockets[index].remote.map { remote($0.address) } ?? false)
            switch udp.sockets[index].life {
            case .open where ends:
                leaveUDPPort(index)
                udp.sockets[index].life = .ended
                udp.sockets[index].events = .closed
                drops.count(.purgedDatagram, times: udp.sockets[index].incoming.count + udp.sockets[index].outgoing.count)
                udp.sockets[index].incoming.releaseAll()
                udp.sockets[index].outgoing.releaseAll()
            case .lingering where udp.sockets[index].outgoing.isEmpty:
                releaseUDP(index)
                continue
            case .open, .lingering, .ended: udp.sockets[index].announceRoom()
            }
            settleUDP(index)
        }
    }

    /// Gives back the memory that was not used since the last call.
    mutating func releaseIdleUDP(now: Instant) {
        udp.nextSweep = nil
        for index in 0..<udp.sockets.slotCount where udp.sockets.isOccupied(index) {
            udp.sockets[index].incoming.releaseIfIdle()
            udp.sockets[index].outgoing.releaseIfIdle()
            settleUDP(index)
            if udp.sockets[index].allocatedBytes > 0 { udp.nextSweep = now + configuration.bufferIdleTime }
        }
    }

    private mutating func leaveUDPPort(_ index: Int) {
        let port = udp.sockets[index].port
        let rest = udp.byPort[port, default: []].filter { Int($0.index) != index }
        udp.byPort[port] = rest.isEmpty ? nil : rest
    }

    private mutating func releaseUDP(_ index: Int) {
        bufferedBytes -= udp.sockets[index].accountedBytes
        bufferMemory -= udp.sockets[index].accountedMemory
        udp.sockets.remove(index)
    }
}
