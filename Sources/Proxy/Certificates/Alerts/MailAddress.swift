/// An address of mail as RFC 5321 §4.1.2 has it, in ASCII and without quoted strings: nothing in it can leave a command or a header.
package struct MailAddress: Sendable, Hashable, CustomStringConvertible {
    package let text: String

    package init?(_ text: String) {
        guard text.utf8.count <= 254, let at = text.lastIndex(of: "@") else { return nil }
        let local = text[..<at]
        guard (1...64).contains(local.utf8.count), Self.isDotString(local), Self.isDomain(text[at...].dropFirst()) else { return nil }
        self.text = text
    }

    package var domain: Substring { text[text.index(after: text.lastIndex(of: "@") ?? text.startIndex)...] }
    package var description: String { text }

    private static func isDotString(_ text: Substring) -> Bool {
        text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { atom in
            !atom.isEmpty && atom.utf8.allSatisfy { isAlphanumeric($0) || "!#$%&'*+-/=?^_`{|}~".utf8.contains($0) }
        }
    }

    /// Labels of letters, digits and hyphens.
    package static func isDomain(_ text: some StringProtocol) -> Bool {
        (1...253).contains(text.utf8.count)
            && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
                (1...63).contains(label.utf8.count) && label.utf8.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
                    && !label.hasPrefix("-") && !label.hasSuffix("-")
            }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: false
        }
    }
}
