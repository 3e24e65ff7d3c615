/// Host names as routes and requests use them: lower case, ASCII, no trailing dot.
enum DomainName {
    /// - Throws: what to write instead.
    static func parse(_ text: String, _ setting: Setting) throws(ConfigurationFault) -> String {
        var name = text.lowercased()
        if name.hasSuffix(".") { name.removeLast() }
        guard !name.utf8.contains(UInt8(ascii: "*")) else {
            throw setting.fault("\(Setting.quoted(text)) has a wildcard", fix: "write each domain in its own route")
        }
        guard name.utf8.allSatisfy({ $0 < 0x80 }) else {
            throw setting.fault("\(Setting.quoted(text)) has letters beyond ASCII", fix: "write its xn-- form")
        }
        let labels = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        let isValid =
            name.utf8.count <= 253
            && labels.allSatisfy { label in
                (1...63).contains(label.count) && label.first != UInt8(ascii: "-") && label.last != UInt8(ascii: "-")
                    && label.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-") }
            }
        guard isValid else { throw setting.fault("\(Setting.quoted(text)) is not a domain", fix: "write a name such as app.example.com") }
        return name
    }
}
