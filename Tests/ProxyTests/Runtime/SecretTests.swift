import Proxy
import Testing

@Suite struct SecretTests {
    @Test("secrets are the same if their bytes are")
    func equality() {
        #expect(Secret("swordfish") == Secret("swordfish"))
        #expect(Secret("swordfish") != Secret("swordfisH") && Secret("swordfish") != Secret("sword") && Secret("") == Secret(""))
    }

    @Test("no way of printing shows it, and texts that repeat it are cleaned")
    func printing() {
        struct Holder { var secret = Secret("swordfish-1234") }
        let secret = Secret("swordfish-1234")
        var dumped = ""
        dump(Holder(), to: &dumped)
        for text in [
            "\(secret)", String(describing: secret), String(reflecting: secret), "\(Holder())", String(reflecting: [secret]), dumped,
        ] {
            #expect(!text.contains("swordfish"))
        }
        #expect(secret.reveal() == "swordfish-1234")
        #expect(secret.redact("Bearer swordfish-1234, swordfish-1234.") == "Bearer (secret), (secret).")
        #expect(Secret("").redact("abc") == "abc")
        // The last letter and an accent are one character.
        #expect(secret.redact("swordfish-1234\u{301}") == "(secret)\u{301}")
    }
}
