/// Host names as routing sees them: lower case, without port and trailing dot.
package enum HostName {
    /// Most bytes of a name, RFC 1035 §2.3.4.
    package static let maximumLength = 253

    /// The routing name of a `Host` field or of the authority of a URI: `App.Example.com.:8443` gives `app.example.com`,
    /// `[FD00::2]:80` gives `[fd00::2]`. Nil if it cannot be a host: user information, blanks, bytes outside ASCII, a bad port.
    package static func normalize(_ field: String) -> String? {
        if isNormal(field) { return field }
        var name = Substring(field)
        if name.utf8.first == UInt8(ascii: "[") {
            guard let end = name.utf8.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            let after = name.utf8.index(after: end)
            guard isPort(name[after...]) else { return nil }
            name = name[..<after]
            guard name.utf8.dropFirst().dropLast().allSatisfy({ isHexadecimal($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".") })
            else { return nil }
            return name.lowercased()
        }
        if let colon = name.utf8.firstIndex(of: UInt8(ascii: ":")) {
            guard isPort(name[colon...]) else { return nil }
            name = name[..<colon]
        }
        if name.utf8.last == UInt8(ascii: ".") { name = name.dropLast() }
        guard name.utf8.count <= maximumLength, name.utf8.allSatisfy({ isNameByte($0) || (0x41...0x5A).contains($0) }) else { return nil }
        return name.lowercased()
    }

    /// Whether the name stays as it is; the common case, decided without making a string.
    private static func isNormal(_ field: String) -> Bool {
        let utf8 = field.utf8
        return utf8.count <= maximumLength && utf8.last != UInt8(ascii: ".") && utf8.allSatisfy(isNameByte)
    }

    private static func isPort(_ text: Substring) -> Bool {
        text.isEmpty
            || (text.utf8.count <= 6 && text.utf8.first == UInt8(ascii: ":")
                && text.utf8.dropFirst().allSatisfy { (0x30...0x39).contains($0) })
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x61...0x7A, 0x30...0x39, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"): true
        default: false
        }
    }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
    }
}
