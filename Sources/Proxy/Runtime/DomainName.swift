/// Domains as configuration writes them.
enum DomainName {
    /// Lower case, without a trailing dot; `*.` may stand for one more label.
    /// - Throws: what to write instead.
    static func parse(_ text: String, _ setting: Setting) throws(ConfigurationFault) -> String {
        if let pattern = DomainPattern(text) { return pattern.name }
        guard text.utf8.allSatisfy({ $0 < 0x80 }) else {
            throw setting.fault("\(Setting.quoted(text)) has letters beyond ASCII", fix: "write its xn-- form")
        }
        throw setting.fault("\(Setting.quoted(text)) is not a domain", fix: "write a name such as app.example.com or *.example.com")
    }
}
