import Inet
import TCPStack

/// Segments of a packet script, to and from the wire.
extension PacketScriptRunner {
    var flowKey: UInt32 { UInt32(harness.localPort) << 16 | UInt32(harness.remotePort) }

    /// The stack's numbers begin at 5000 in a script.
    private func ourShift(_ key: UInt32) -> UInt32 { flows[key]?.iss.map { $0 &- 5000 } ?? 0 }

    // MARK: To the stack

    func send(_ form: SegmentForm) throws(PacketScript.Fault) {
        guard let flags = form.flags else { throw PacketScript.Fault(description: "a segment that is sent has flags") }
        let start = form.seq?.value ?? 0
        let total = Int((form.end?.value ?? start) &- start)
        guard total % form.count == 0, total < 65_000 * form.count else { throw PacketScript.Fault(description: "no such length") }
        for part in 0..<form.count {
            let length = total / form.count
            let seq = start &+ UInt32(part * length)
            // The first octet behind the SYN is number 0 of the stream.
            let first = seq &- (flags.contains(.syn) ? 1000 : 1001)
            let fill = form.extras["fill"].flatMap { UInt8($0) }
            let text = (0..<UInt32(length)).map { fill ?? Self.streamByte(first &+ $0) }
            try emit(packet(form, flags: flags, seq: seq, text: text), form)
            trace.append("\(clock(harness.now)) > \(describe(form, flags: flags, seq: seq, length: length))")
        }
    }

    private func packet(_ form: SegmentForm, flags: TCPFlags, seq: UInt32, text: [UInt8]) throws(PacketScript.Fault) -> [UInt8] {
        let shift = ourShift(flowKey)
        var options = TCPOptions()
        options.maximumSegmentSize = form.numbers[.mss]?.value.map { UInt16(truncatingIfNeeded: $0) }
        options.windowScale = form.numbers[.ws]?.value.map { UInt8(truncatingIfNeeded: $0) }
        options.isSACKPermitted = form.numbers[.sackOK] != nil && !form.absent.contains(.sackOK)
        for block in form.sack ?? [] {
            options.sack.append(
                SequenceRange(SequenceNumber(block.lowerBound &+ shift), SequenceNumber(block.upperBound &+ shift)))
        }
        if flags.contains(.syn), form.numbers[.ts] != nil { peerSendsTimestamps = true }
        if let value = form.numbers[.ts] ?? (peerSendsTimestamps ? .any : nil), !form.absent.contains(.ts) {
            let echo: UInt32
            switch form.numbers[.ecr]?.value {
            case nil: echo = flags.contains(.ack) ? flows[flowKey]?.lastTimestamp ?? 0 : 0
            case 0: echo = 0
            case let number?: echo = number &- 9000 &+ (flows[flowKey]?.firstTimestamp ?? 0)
            }
            let elapsed = (harness.now - birth).inNanoseconds / 1_000_000
            options.timestamps = .init(value: value.value ?? UInt32(truncatingIfNeeded: 1000 + elapsed), echoReply: echo)
        }
        var area = [UInt8](repeating: 0, count: options.encodedLength)
        do {
            var span = area.mutableSpan
            var bytes = span.mutableBytes
            options.write(into: &bytes, at: 0)
        }
        if let hexadecimal = form.extras["opt"] {
            guard let raw = Self.bytes(hexadecimal), raw.count % 4 == 0, area.count + raw.count <= 40 else {
                throw PacketScript.Fault(description: "opt takes up to 40 bytes, four by four")
            }
            area += raw
        }
        let acknowledgment = flags.contains(.ack) || form.numbers[.ack] != nil ? (form.numbers[.ack]?.value ?? 0) &+ shift : 0
        let header = TCPHeader(
            sourcePort: harness.remotePort, destinationPort: harness.localPort, sequence: SequenceNumber(seq &+ peerShift),
            acknowledgment: SequenceNumber(acknowledgment), flags: flags,
            window: UInt16(truncatingIfNeeded: form.numbers[.win]?.value ?? 65_535), headerLength: 20 + area.count)
        return Self.packet(
            from: try address(form.extras["from"]) ?? harness.remote, to: try address(form.extras["to"]) ?? harness.local, header: header,
            options: area, text: text, urgent: UInt16(truncatingIfNeeded: form.numbers[.urg]?.value ?? 0), ecn: form.ecn ?? 0)
    }

    private func emit(_ good: [UInt8], _ form: SegmentForm) throws(PacketScript.Fault) {
        var packet = good
        let start = SegmentWriter.ipHeaderLength(family)
        let value = form.extras["value"].flatMap { Int($0) } ?? 1
        switch form.extras["bad"] {
        case nil: break
        case "checksum": packet[start + 16] ^= 0x55
        case "offset": packet[start + 12] = UInt8(truncatingIfNeeded: value << 4)
        case "length": packet.removeLast(min(value, packet.count))
        case "ip": packet[0] ^= 0x30
        case let what?: throw PacketScript.Fault(description: "bad what? \(what)")
        }
        if let fragment = form.extras["fragment"] {
            let ends = fragment.split(separator: ":").compactMap { Int($0) }
            guard ends.count == 2, ends[0] < ends[1], ends[1] <= packet.count - start else {
                throw PacketScript.Fault(description: "fragment FROM:TO of \(packet.count - start) bytes")
            }
            let id = form.extras["id"].flatMap { UInt32($0) } ?? 1
            packet = Self.fragment(ends[0]..<ends[1], of: packet, identification: id)
        }
        harness.inject(packet)
    }

    /// `icmp too-big mtu 1300 quoting 5001:6001`, `icmp unreachable port quoting 5001`
    func sendICMP(_ words: [String]) throws(PacketScript.Fault) {
        let names: [String: (v4: (UInt8, UInt8), v6: (UInt8, UInt8))] = [
            "too-big": ((3, 4), (2, 0)), "net": ((3, 0), (1, 0)), "host": ((3, 1), (1, 3)), "protocol": ((3, 2), (4, 1)),
            "port": ((3, 3), (1, 4)), "admin": ((3, 13), (1, 1)), "time-exceeded": ((11, 0), (3, 0)),
            "parameter-problem": ((12, 0), (4, 0)), "quench": ((4, 0), (200, 0)),
        ]
        var form: SegmentForm?
        var (rest, type) = (UInt32(0), names["port"])
        var index = 0
        while index < words.count {
            switch words[index] {
            case "unreachable": break
            case "mtu":
                index += 1
                rest = UInt32(try number(words, index))
            case "quoting":
                index += 1
                form = try SegmentForm(["A"] + words[index...].prefix(1))
            default:
                type = names[words[index]]
                if type == nil { throw PacketScript.Fault(description: "no such error: \(words[index])") }
            }
            index += 1
        }
        guard let form, let type, let seq = form.seq?.value else { throw PacketScript.Fault(description: "what does it quote?") }
        let header = TCPHeader(
            sourcePort: harness.localPort, destinationPort: harness.remotePort, sequence: SequenceNumber(seq &+ ourShift(flowKey)),
            acknowledgment: SequenceNumber(0), flags: .ack, window: 0)
        let text = [UInt8](repeating: 0, count: Int((form.end?.value ?? seq) &- seq))
        let quoted = Self.packet(from: harness.local, to: harness.remote, header: header, options: [], text: text, urgent: 0, ecn: 0)
        let (kind, code) = family == .v4 ? type.v4 : type.v6
        harness.inject(
            icmpError(
                type: kind, code: code, rest: rest, quoting: Array(quoted.prefix(SegmentWriter.ipHeaderLength(family) + 8)),
                from: harness.remote, to: harness.local))
        trace.append("\(clock(harness.now)) > icmp \(words.joined(separator: " "))")
    }

    private func address(_ text: String?) throws(PacketScript.Fault) -> IPAddress? {
        switch text {
        case nil: return nil
        case "us": return harness.local
        case let text?:
            guard let address = IPAddress(text), address.family == family else {
                throw PacketScript.Fault(description: "no address: \(text)")
            }
            return address
        }
    }

    // MARK: From the stack

    /// The packet in the script's numbers.
    func departure(_ packet: [UInt8]) throws(PacketScript.Fault) -> Departure {
        guard var segment = TCPScript.parse(packet), let ip = try? IPHeader(parsing: packet.span.bytes) else {
            throw PacketScript.Fault(description: "no TCP segment came, or a broken one: \(packet.prefix(80))")
        }
        let key = UInt32(segment.sourcePort) << 16 | UInt32(segment.destinationPort)
        var flow = flows[key] ?? Flow()
        if segment.flags.contains(.syn), flow.iss != segment.seq { flow = Flow(iss: segment.seq) }
        if let value = segment.tsVal {
            flow.firstTimestamp = flow.firstTimestamp ?? value
            flow.lastTimestamp = value
            segment.tsVal = value &- (flow.firstTimestamp ?? 0) &+ 9000
        }
        flows[key] = flow
        // What answers without a connection has numbers of the peer, or none.
        segment.seq = segment.flags == [.rst, .ack] && segment.seq == 0 ? 0 : segment.seq &- ourShift(key)
        if segment.flags.contains(.ack) { segment.ack = segment.ack &- peerShift }
        segment.sack = segment.blocks.map { block in
            let start = block.start.rawValue &- peerShift
            return start..<max(start, block.end.rawValue &- peerShift)
        }
        return Departure(segment: segment, at: harness.now, ecn: ip.trafficClass & 3)
    }

    /// The first thing in which a segment is not as expected.
    func difference(_ form: SegmentForm, _ departure: Departure) -> String? {
        let segment = departure.segment
        if let flags = form.flags {
            let optional: TCPFlags = [.psh, .ece, .cwr]
            guard flags == segment.flags.subtracting(optional.subtracting(flags)) else { return "other flags came" }
        }
        if let seq = form.seq, !seq.matches(segment.seq) { return "seq is \(segment.seq)" }
        let end = segment.seq &+ UInt32(segment.text.count)
        if let pattern = form.end, !pattern.matches(end) { return "its text ends at \(end)" }
        for (field, pattern) in form.numbers {
            guard let value = value(field, segment) else { return "\(field) is missing" }
            guard pattern.matches(value) else { return "\(field) is \(value)" }
        }
        for field in form.absent where value(field, segment) != nil { return "\(field) is there" }
        if let sack = form.sack, sack != segment.sack { return "other SACK blocks came" }
        if let ecn = form.ecn, ecn != departure.ecn { return "ECN is \(departure.ecn)" }
        let first = segment.seq &- (segment.flags.contains(.syn) ? 5000 : 5001)
        for (index, byte) in segment.text.enumerated() where byte != Self.streamByte(first &+ UInt32(index)) {
            return "byte \(index) of the text is wrong"
        }
        return nil
    }

    private func value(_ field: SegmentForm.Field, _ segment: TCPScript.Segment) -> UInt32? {
        switch field {
        case .ack: segment.flags.contains(.ack) ? segment.ack : nil
        case .win: UInt32(segment.window)
        case .mss: segment.mss.map(UInt32.init)
        case .ws: segment.windowScale.map(UInt32.init)
        case .sackOK: segment.sackPermitted ? 1 : nil
        case .ts: segment.tsVal
        case .ecr: segment.tsEcr
        case .urg: nil
        case .len: UInt32(segment.packetLength)
        }
    }

    // MARK: Descriptions

    func describe(_ segment: TCPScript.Segment) -> String {
        var text = segment.description
        if let mss = segment.mss { text += " mss \(mss)" }
        if let scale = segment.windowScale { text += " ws \(scale)" }
        if segment.sackPermitted { text += " sackOK" }
        if let value = segment.tsVal, let echo = segment.tsEcr { text += " ts \(value) ecr \(echo)" }
        return text + " len \(segment.packetLength)"
    }

    private func describe(_ form: SegmentForm, flags: TCPFlags, seq: UInt32, length: Int) -> String {
        var segment = TCPScript.Segment(
            flags: flags, seq: seq, ack: form.numbers[.ack]?.value ?? 0,
            window: UInt16(truncatingIfNeeded: form.numbers[.win]?.value ?? 65_535),
            text: [UInt8](repeating: 0, count: length), sourcePort: harness.remotePort, destinationPort: harness.localPort)
        segment.sack = form.sack ?? []
        return segment.description + form.extras.sorted { $0.key < $1.key }.map { " \($0.key) \($0.value)" }.joined()
    }
}
