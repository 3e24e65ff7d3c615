import Proxy
import Testing

@Suite struct DomainPatternTests {
    @Test("case and a trailing dot do not matter")
    func normalization() {
        #expect(DomainPattern("App.Example.COM.")?.name == "app.example.com")
        #expect(DomainPattern("*.Example.com")?.name == "*.example.com")
    }

    @Test(
        "what is no host name is refused",
        arguments: ["", ".", "a..b", ".a", "-a.b", "a-.b", "a.b-", "ä.example", "a b", "*", "*.", "a.*.b", "a/b", "a:1", "a\0b"])
    func invalid(text: String) { #expect(DomainPattern(text) == nil) }

    @Test("labels end at 63 characters, names at 253")
    func lengths() {
        let label = String(repeating: "a", count: 63)
        #expect(DomainPattern(label + ".example") != nil)
        #expect(DomainPattern(label + "a.example") == nil)
        let name = [label, label, label, String(repeating: "b", count: 61)].joined(separator: ".")
        #expect(DomainPattern(name) != nil)
        #expect(DomainPattern("c" + name) == nil)
    }

    @Test("a wildcard stands for exactly one label")
    func wildcard() throws {
        let pattern = try #require(DomainPattern("*.example.com"))
        #expect(pattern.covers("a.example.com"))
        #expect(!pattern.covers("example.com"))
        #expect(!pattern.covers("a.b.example.com"))
        #expect(!pattern.covers("aexample.com"))
    }

    @Test("a subtree holds the name itself and everything below it")
    func subtrees() throws {
        let pattern = try #require(DomainPattern("app.example.com"))
        #expect(pattern.lies(in: ["app.example.com"]))
        #expect(pattern.lies(in: ["example.com"]))
        #expect(!pattern.lies(in: ["p.example.com", "ample.com", "b.app.example.com"]))
    }
}
