import Proxy
import Testing

@Suite struct XMLElementTests {
    private func read(_ text: String) -> XMLElement? { XMLElement.read(Array(text.utf8)) }

    @Test("elements, text, entities, attributes and prefixes; declarations and comments are skipped")
    func document() throws {
        let document = try #require(
            read(
                "<?xml version=\"1.0\"?>\n<!-- <x> -->\n<r:Root xmlns:r='u'>\n <A b='c'> 1 &amp; &#50;&#x33; </A><B/><A>&quot;v&quot;</A>\n</r:Root>\n"
            ))
        #expect(document.name == "Root" && document.children.map(\.name) == ["A", "B", "A"])
        #expect(document.first("A")?.text == "1 & 23" && document.all("A").map(\.text) == ["1 & 23", "\"v\""])
        #expect(document.descendant("B")?.text == "" && document.descendant("C") == nil)
    }

    @Test("what is not well-formed, has a document type, or is too deep or too long is none")
    func hostile() {
        for text in [
            "", "text", "<a>", "<a></b>", "</a>", "<a></a><b></b>", "<a>&unknown;</a>", "<a>& b</a>", "<a>&#xFFFFFFFFF;</a>", "<a><",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "<a><![CDATA[x]]></a>", "<!-- ", "<?xml", "<a><></></a>", "<>",
        ] { #expect(read(text) == nil, "\(text)") }
        #expect(read(String(repeating: "<a>", count: 16) + String(repeating: "</a>", count: 16)) != nil)
        #expect(read(String(repeating: "<a>", count: 17) + String(repeating: "</a>", count: 17)) == nil)
        #expect(read("<a>" + String(repeating: "<b/>", count: 20_000) + "</a>") == nil)
        #expect(XMLElement.read([0x3C, 0xFF, 0x3E]) == nil)
    }

    @Test("text of our own is escaped")
    func escape() { #expect(XMLElement.escape("<a b=\"c\">&") == "&lt;a b=&quot;c&quot;&gt;&amp;") }
}
