import Inet
import Proxy
import Testing

@Suite struct DNSMessageTests {
    /// Made by dnspython: a CNAME, two TXT records, NS, A and AAAA, with names compressed.
    private static let answer = hexadecimal(
        "00078100000100030001000201610162074578616d706c650000100001c00c000500010000003c00040163c010c029001000010000003c0008036f6e650374776f"
            + "c029001000010000003c0006057468726565c010000200010000003c0005026e73c010c05f000100010000003c0004c0000201c05f001c00010000003c0010"
            + "20010db8000000000000000000000001")

    @Test("an answer with compressed names, of another implementation")
    func read() throws {
        let message = try #require(DNSMessage(Self.answer))
        let (a, c) = (try #require(DNSName("a.b.example")), try #require(DNSName("C.Example.")))
        #expect(message.id == 7 && message.isResponse && message.responseCode.rawValue == 0)
        #expect(message.questions == [.init(a, DNSType.txt)])
        #expect(message.answers.map(\.name) == [a, c, c])
        #expect(message.answers[0].data == .name(c))
        #expect(message.answers[1].data.joinedText == "onetwo" && message.answers[2].data.joinedText == "three")
        #expect(message.authorities.map(\.data) == [.name(try #require(DNSName("ns.example")))])
        #expect(
            message.additionals.map(\.data) == [.address(IPAddress(v4: 192, 0, 2, 1)), .address(try #require(IPAddress("2001:db8::1")))])
        #expect(message.lastRecord == Self.answer.count - 28)
    }

    @Test("what is written without compression is read as the same")
    func roundTrip() throws {
        let message = try #require(DNSMessage(Self.answer))
        let again = try #require(DNSMessage(message.encode()))
        #expect(again.answers == message.answers && again.authorities == message.authorities && again.additionals == message.additionals)
    }

    @Test("an answer that is cut anywhere, or has bytes behind it, is none")
    func cut() {
        for count in 0..<Self.answer.count { #expect(DNSMessage(Array(Self.answer.prefix(count))) == nil) }
        #expect(DNSMessage(Self.answer + [0]) == nil)
    }

    @Test("pointers that lead to themselves, forwards or round in circles end nothing but the message")
    func pointers() {
        let header: [UInt8] = [0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        func question(_ name: [UInt8]) -> DNSMessage? { DNSMessage(header + name + [0, 16, 0, 1]) }
        #expect(question([1, 0x61, 0]) != nil)
        #expect(question([0xC0, 12]) == nil)
        #expect(question([0xC0, 14, 0]) == nil)
        #expect(question([1, 0x61, 0xC0, 12]) == nil)
        #expect(question([0xC0, 0xFF]) == nil)
        #expect(question([0x40, 0x61, 0]) == nil)
        #expect(question([0x80, 0x61, 0]) == nil)
        // The header read as a name: labels of 0 length, which is the root.
        #expect(question([0xC0, 0])?.questions.first?.name == .root)
    }

    @Test("names have at most 255 bytes, however they are put together")
    func longNames() {
        let label = [63] + [UInt8](repeating: 0x61, count: 63)
        let header: [UInt8] = [0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        #expect(DNSMessage(header + label + label + label + [61] + [UInt8](repeating: 0x61, count: 61) + [0, 0, 16, 0, 1]) != nil)
        #expect(DNSMessage(header + label + label + label + label + [0, 0, 16, 0, 1]) == nil)
        #expect(DNSName(String(repeating: "a", count: 64)) == nil && DNSName("a..b") == nil)
        #expect(DNSName(".") == .root && DNSName("")?.description == ".")
    }

    @Test("names are compared without regard to case, and shown with escapes")
    func names() throws {
        #expect(DNSName("ExAmple.COM.") == DNSName("example.com"))
        #expect(DNSName(labels: [[0x61, 0x2E, 0x5C], [0x00, 0xFF]])?.description == #"a\.\\.\000\255"#)
        let zone = try #require(DNSName("example.com"))
        func lies(_ name: String) -> Bool { DNSName(name)?.lies(in: zone) ?? false }
        #expect(lies("a.example.com") && !lies("aexample.com") && !lies("com") && lies("example.com") && zone.lies(in: .root))
    }

    @Test("an answer has the number, the question and the operation of its query")
    func matching() throws {
        let name = try #require(DNSName("example.com"))
        let query = DNSMessage(id: 7, flags: DNSFlags.recursionDesired, questions: [.init(name, DNSType.txt)])
        func reply(id: UInt16 = 7, flags: UInt16 = DNSFlags.response, _ questions: [DNSMessage.Question]? = nil) -> DNSMessage {
            DNSMessage(id: id, flags: flags, questions: questions ?? query.questions)
        }
        #expect(reply().answers(query))
        #expect(!reply(id: 8).answers(query) && !reply(flags: 0).answers(query))
        #expect(!reply(flags: DNSFlags.response | DNSFlags.update).answers(query))
        #expect(!reply([.init(name, DNSType.a)]).answers(query) && !reply([]).answers(query))
        // A server that did not understand the question need not repeat it.
        #expect(reply(flags: DNSFlags.response | 1, []).answers(query))
    }

    @Test("a name has at most 127 pointers, a message at most 512 records")
    func bounds() {
        /// A record whose data is a chain of pointers, and one whose name is its end.
        func message(pointers: Int) -> DNSMessage? {
            let start = 12 + 11
            var data: [UInt8] = [0]
            for index in 0..<(pointers - 1) {
                let target = index == 0 ? start : start + 1 + 2 * (index - 1)
                data += [0xC0 | UInt8(target >> 8), UInt8(target & 0xFF)]
            }
            let last = start + data.count - 2
            let header: [UInt8] = [0, 1, 0x80, 0, 0, 0, 0, 2, 0, 0, 0, 0]
            let first: [UInt8] = [0, 0, 99, 0, 1, 0, 0, 0, 0, UInt8(data.count >> 8), UInt8(data.count & 0xFF)] + data
            return DNSMessage(header + first + [0xC0 | UInt8(last >> 8), UInt8(last & 0xFF), 0, 99, 0, 1, 0, 0, 0, 0, 0, 0])
        }
        #expect(message(pointers: 127)?.answers.last?.name == .root)
        #expect(message(pointers: 128) == nil)
        func message(questions: Int) -> DNSMessage? {
            let header: [UInt8] = [0, 1, 0x80, 0, UInt8(questions >> 8), UInt8(questions & 0xFF), 0, 0, 0, 0, 0, 0]
            return DNSMessage(header + (0..<questions).flatMap { _ in [0, 0, 16, 0, 1] as [UInt8] })
        }
        #expect(message(questions: DNSMessage.maximumRecords) != nil && message(questions: DNSMessage.maximumRecords + 1) == nil)
    }
}
