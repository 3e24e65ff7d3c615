import TestSupport
import Testing
import WGUserspace

@Suite struct MessagesTests {
    @Test("a message is known by its type and exact length")
    func exactLengths() {
        for count in 0...200 {
            for type in UInt8(0)...6 {
                var bytes = [UInt8](repeating: 0, count: count)
                if count > 0 { bytes[0] = type }
                let expected: Message =
                    switch (type, count) {
                    case (_, 0..<4): .invalid(.truncated)
                    case (1, 148): .initiation
                    case (2, 92): .response
                    case (3, 64): .cookieReply
                    case (4, 32...): .data(receiverIndex: 0, counter: 0)
                    case (1...4, _): .invalid(.wrongLength)
                    default: .invalid(.unknownType)
                    }
                #expect(Message.classify(bytes.span.bytes) == expected, "type \(type), \(count) bytes")
            }
        }
    }

    @Test("the three reserved bytes must be zero", arguments: 1...3)
    func reservedBytes(offset: Int) {
        for (type, count) in [(UInt8(1), 148), (2, 92), (3, 64), (4, 32)] {
            var bytes = [UInt8](repeating: 0, count: count)
            bytes[0] = type
            bytes[offset] = 1
            #expect(Message.classify(bytes.span.bytes) == .invalid(.unknownType))
        }
    }

    @Test("index and counter of a data message are little-endian")
    func dataFields() {
        var bytes = [UInt8](repeating: 0, count: 32)
        bytes.replaceSubrange(0..<16, with: [4, 0, 0, 0, 1, 2, 3, 4, 8, 7, 6, 5, 4, 3, 2, 1])
        #expect(Message.classify(bytes.span.bytes) == .data(receiverIndex: 0x0403_0201, counter: 0x0102_0304_0506_0708))
    }

    @Test("packets are padded as the vectors state, and never beyond the MTU")
    func padding() throws {
        for row in try VectorFile("wireguard").root["primitives"]["padding"]["rows"].array {
            #expect(try DataMessage.paddedLength(row[0].int, mtu: row[1].int) == row[2].int, "\(row)")
        }
        #expect(DataMessage.paddedLength(1500, mtu: 1420) == 1500)
    }

    @Test("there is a counter for every reason")
    func dropCounters() {
        #expect(DropReason.allCases.count <= DropCounters.capacity)
        #expect(Set(DropReason.allCases.map(\.rawValue)) == Set(0..<DropReason.allCases.count))
    }
}
