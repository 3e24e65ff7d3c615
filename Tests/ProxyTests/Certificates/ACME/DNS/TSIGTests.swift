import Proxy
import Testing

@Suite struct TSIGTests {
    /// 32 bytes from 0 to 31.
    private static let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    private static let time: UInt64 = 1_800_000_000

    private struct Vector {
        var algorithm: TSIGKey.Algorithm
        var requestMAC: String
        var response: String
    }

    /// dnspython's signed answers to signed updates.
    private static let vectors = [
        Vector(
            algorithm: .sha256, requestMAC: "df1dd9a4e44ddf0a44e00e996ee8fe52cc7d1e454ba4b3e9f03821a035afe9c0",
            response:
                "1234a8000001000000000001076578616d706c6503636f6d0000060001036b6579076578616d706c650000fa00ff00000000003d0b686d61632d73"
                + "68613235360000006b49d200012c0020d17e146e5620bef732c0e7a1011f2f6f2768fe1de84b6cf8c42f71d59a6aa581123400000000"),
        Vector(
            algorithm: .sha384,
            requestMAC: "54e74bd4484d830636094c263cbe56fd981a91e04b0ee5765a73116480b249587321dc1081059d81d94b46fcfa293f09",
            response:
                "1234a8000001000000000001076578616d706c6503636f6d0000060001036b6579076578616d706c650000fa00ff00000000004d0b686d61632d73"
                + "68613338340000006b49d200012c0030e9256f6d736f3a7a5728325fe2d524259350d5a73ceab4caab9cd3f4390536fe7a33409f02275209c031831ef7"
                + "f7e68e123400000000"),
        Vector(
            algorithm: .sha512,
            requestMAC:
                "7ff5b01f8e5385f2dc6b75b182eb72468153a0675f960b7a2c5ef9964af34457bdc31496328731dd0628a8676cbb6d9d08346cf9640b0c5ea06a1d4fbb6c8153",
            response:
                "1234a8000001000000000001076578616d706c6503636f6d0000060001036b6579076578616d706c650000fa00ff00000000005d0b686d61632d73"
                + "68613531320000006b49d200012c0040de89d27e3e91b07b6805ea2badf85574faaca44f5d1919bdafeefe86ae6e229d66f777a24473c4ef2eb46e7112"
                + "15bcd2648867e9514b0d598cfb4cdde64c3c35123400000000"),
    ]

    private func key(_ algorithm: TSIGKey.Algorithm = .sha256, name: String = "key.example") throws -> TSIGKey {
        try #require(TSIGKey(name: name, algorithm: algorithm, secret: Secret(Self.secret)))
    }

    private func fault(_ body: () throws(DNSFault) -> Void) -> String {
        do throws(DNSFault) {
            try body()
            return ""
        } catch {
            return error.reason
        }
    }

    @Test("signed answers of another implementation, by three algorithms, hold; not with another request, any bit turned over, or late")
    func vectors() throws {
        for vector in Self.vectors {
            let key = try key(vector.algorithm)
            let (bytes, mac) = (hexadecimal(vector.response), hexadecimal(vector.requestMAC))
            let message = try #require(DNSMessage(bytes))
            let start = try #require(message.lastRecord)
            #expect(fault { () throws(DNSFault) in try key.verify(message, bytes, requestMAC: mac, at: Self.time + 300) } == "")
            #expect(
                fault { () throws(DNSFault) in try key.verify(message, bytes, requestMAC: mac, at: Self.time + 301) }.contains("301 s away")
            )
            #expect(
                fault { () throws(DNSFault) in try key.verify(message, bytes, requestMAC: mac.reversed(), at: Self.time) }
                    == "the answer's signature is wrong")
            for bit in 0..<bytes.count * 8 {
                var changed = bytes
                changed[bit / 8] ^= 1 << (bit % 8)
                // The number is the transport's to check: here the signed one is in the TSIG. The names in it have no case.
                let isCase = bit % 8 == 5 && bit / 8 >= start && Unicode.Scalar(bytes[bit / 8]).properties.isAlphabetic
                guard bit >= 16, !isCase, let message = DNSMessage(changed) else { continue }
                #expect(
                    fault { () throws(DNSFault) in try key.verify(message, changed, requestMAC: mac, at: Self.time) } != "", "bit \(bit)")
            }
        }
    }

    @Test("a signed request ends with its TSIG, whose MAC covers the message and the variables")
    func sign() throws {
        let message = DNSMessage(id: 0x1234, flags: DNSFlags.update, questions: [.init(try #require(DNSName("example.com")), DNSType.soa)])
        let (bytes, mac) = try key().sign(message, at: Self.time)
        let read = try #require(DNSMessage(bytes))
        #expect(read.additionals.count == 1 && read.additionals[0].type == DNSType.tsig && read.additionals[0].class == DNSClass.any)
        // A request is covered as an answer to nothing would be, but for the length of no MAC.
        #expect(mac.count == 32 && read.lastRecord == message.encode().count)
        #expect(try key(.sha512).sign(message, at: Self.time).mac.count == 64)
    }

    @Test("no signature, another key, and the three errors of RFC 8945 §5.2 say what is wrong")
    func errors() throws {
        let name = try #require(DNSName("key.example"))
        func answer(_ error: UInt8, key: String = "key.example", flags: UInt16 = 0xA809) throws -> (DNSMessage, [UInt8]) {
            var message = DNSMessage(id: 1, flags: flags)
            let data: [UInt8] =
                [11] + Array("hmac-sha256".utf8) + [0] + [0, 0, 0x6B, 0x49, 0xD2, 0] + [1, 44, 0, 0, 0, 1, 0, error, 0, 0]
            message.additionals = [.init(try #require(DNSName(key)), DNSType.tsig, class: DNSClass.any, data: .other(data))]
            let bytes = message.encode()
            return (try #require(DNSMessage(bytes)), bytes)
        }
        func text(_ answer: (DNSMessage, [UInt8])) throws -> String {
            let key = try key()
            return fault { () throws(DNSFault) in try key.verify(answer.0, answer.1, requestMAC: [1], at: Self.time) }
        }
        #expect(try text(answer(16)).hasPrefix("NOTAUTH (BADSIG): the server has another secret for the key \(name)"))
        #expect(try text(answer(17)).hasPrefix("NOTAUTH (BADKEY): the server does not know the key"))
        #expect(try text(answer(18)) == "the answer's signature is wrong")
        #expect(try text(answer(0)) == "the answer's signature is wrong")
        #expect(try text(answer(0, key: "other.example")) == "the answer is signed with another key or algorithm")
        let unsigned = DNSMessage(id: 1, flags: 0xA805)
        #expect(try text((unsigned, unsigned.encode())).hasPrefix("the answer is not signed: REFUSED"))
    }

    @Test("a key needs a name and base64")
    func keys() {
        #expect(TSIGKey(name: "", algorithm: .sha256, secret: Secret(Self.secret)) == nil)
        #expect(TSIGKey(name: "k", algorithm: .sha256, secret: Secret("!!")) == nil)
        #expect(TSIGKey(name: "k.", algorithm: .sha256, secret: Secret(Self.secret))?.name == DNSName("k"))
    }
}
