import Inet
import Noise
import TestSupport
import Testing

@Suite struct ChaChaPolyTests {
    @Test("the vector of RFC 8439 appendix A.5 seals and opens")
    func rfc8439() throws {
        let key = SecretBytes(try #require([UInt8](hex: "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")))
        let additionalData = try #require([UInt8](hex: "f33388860000000000004e91"))
        let text = [UInt8](
            utf8: "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, or obsoleted by "
                + "other documents at any time. It is inappropriate to use Internet-Drafts as reference material or to cite them other "
                + "than as /\u{201C}work in progress./\u{201D}")
        let sealed = try #require(
            [UInt8](
                hex:
                    "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b"
                    + "7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c8559797a06ef4f0ef61c186324e2b3506383606907b6a7c"
                    + "02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d"
                    + "072b04b3564eea1b422273f548271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff"
                    + "77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38"))
        // The RFC's nonce is 00000000 0102030405060708.
        let counter: UInt64 = 0x0807_0605_0403_0201
        var buffer = text + [UInt8](repeating: 0, count: 16)
        seal(&buffer, 0..<text.count, counter, key, additionalData)
        #expect(buffer.hex == sealed.hex)
        #expect(open(&buffer, 0..<sealed.count, counter, key, additionalData) == true)
        #expect(Array(buffer.prefix(text.count)) == text)
    }

    @Test("sealing touches only the plaintext and the tag behind it")
    func inPlace() {
        let key = SecretBytes(count: 32)
        for count in [0, 1, 15, 16, 17, 63, 64, 65, 1_420] {
            var buffer = [UInt8](repeating: 0xAA, count: 16 + count + 16 + 16)
            seal(&buffer, 16..<16 + count, 9, key, [])
            #expect(buffer.prefix(16).allSatisfy { $0 == 0xAA } && buffer.suffix(16).allSatisfy { $0 == 0xAA })
            #expect(open(&buffer, 16..<16 + count + 16, 9, key, []) == true)
            #expect(buffer[16..<16 + count].allSatisfy { $0 == 0xAA } == true)
        }
    }

    @Test("another key, counter, additional data, length or bit does not open")
    func forgeries() {
        let key = SecretBytes([UInt8](repeating: 1, count: 32))
        let other = SecretBytes([UInt8](repeating: 2, count: 32))
        var sealed = [UInt8](repeating: 0x55, count: 40 + 16)
        seal(&sealed, 0..<40, 1, key, [1, 2, 3])
        func opens(_ bytes: [UInt8], _ counter: UInt64, _ key: borrowing SecretBytes, _ additionalData: [UInt8]) -> Bool {
            var copy = bytes
            return open(&copy, 0..<copy.count, counter, key, additionalData)
        }
        #expect(opens(sealed, 1, key, [1, 2, 3]) == true)
        #expect(opens(sealed, 1, other, [1, 2, 3]) == false)
        #expect(!opens(sealed, 2, key, [1, 2, 3]) && !opens(sealed, 1 << 32 | 1, key, [1, 2, 3]))
        #expect(!opens(sealed, 1, key, [1, 2]) && !opens(sealed, 1, key, []))
        for count in 0..<sealed.count { #expect(opens(Array(sealed.prefix(count)), 1, key, [1, 2, 3]) == false) }
        for offset in sealed.indices {
            for bit in 0..<8 { #expect(opens(sealed.flipping(bit: bit, at: offset), 1, key, [1, 2, 3]) == false) }
        }
    }

    private func seal(
        _ buffer: inout [UInt8], _ plaintext: Range<Int>, _ counter: UInt64, _ key: borrowing SecretBytes, _ additionalData: [UInt8]
    ) {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        ChaChaPoly.seal(&bytes, plaintext: plaintext, counter: counter, key: key, additionalData: additionalData.span.bytes)
    }

    private func open(
        _ buffer: inout [UInt8], _ ciphertext: Range<Int>, _ counter: UInt64, _ key: borrowing SecretBytes, _ additionalData: [UInt8]
    ) -> Bool {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return ChaChaPoly.open(&bytes, ciphertext: ciphertext, counter: counter, key: key, additionalData: additionalData.span.bytes)
    }
}

@Suite struct XChaChaPolyTests {
    @Test("HChaCha20 gives the subkey of draft-irtf-cfrg-xchacha-03 §2.2.1")
    func subkey() throws {
        let key = (0..<32).map { UInt8($0) }
        let nonce = try #require([UInt8](hex: "000000090000004a0000000031415927"))
        let subkey = [UInt8](XChaChaPoly.hChaCha20(key: key.span.bytes, nonce: nonce.span.bytes)).hex
        #expect(subkey == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc")
    }

    @Test("the vector of draft-irtf-cfrg-xchacha-03 appendix A.3.1 seals and opens")
    func draft() throws {
        let text = [UInt8](
            utf8: "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.")
        let key = (0x80..<0xA0).map { UInt8($0) }
        let nonce = (0x40..<0x58).map { UInt8($0) }
        let additionalData = try #require([UInt8](hex: "50515253c0c1c2c3c4c5c6c7"))
        var buffer = text + [UInt8](repeating: 0, count: 16)
        do {
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            XChaChaPoly.seal(
                &bytes, plaintext: 0..<text.count, nonce: nonce.span.bytes, key: key.span.bytes, additionalData: additionalData.span.bytes)
        }
        #expect(Array(buffer.prefix(16)).hex == "bd6d179d3e83d43b9576579493c0e939")
        #expect(Array(buffer.suffix(16)).hex == "c0875924c1c7987947deafd8780acf49")
        let sealed = buffer
        for offset in sealed.indices {
            var forged = sealed.flipping(bit: offset % 8, at: offset)
            #expect(open(&forged, nonce, key, additionalData) == false)
        }
        #expect(open(&buffer, nonce, key, additionalData) == true)
        #expect(Array(buffer.prefix(text.count)) == text)
        for count in 0..<sealed.count {
            var cut = Array(sealed.prefix(count))
            #expect(open(&cut, nonce, key, additionalData) == false)
        }
    }

    private func open(_ buffer: inout [UInt8], _ nonce: [UInt8], _ key: [UInt8], _ additionalData: [UInt8]) -> Bool {
        let count = buffer.count
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return XChaChaPoly.open(
            &bytes, ciphertext: 0..<count, nonce: nonce.span.bytes, key: key.span.bytes, additionalData: additionalData.span.bytes)
    }
}
