import Inet
import Proxy
import TOMLKit
import Testing

/// The reader beside another implementation (toml++). The oracle is asked only about documents that the reader accepts: some others
/// trip assertions in it. It turns CR LF inside strings into LF, which the standard leaves open.
@Suite struct TOMLOracleTests {
    static let corpus = [
        "",
        "# comment\nkey = \"value\" # more\n",
        "title = \"x\"\n[owner]\nname = 'Tom'\n[database]\nports = [8000, 8001, 8002]\ndata = [[\"delta\", \"phi\"], [3.14]]\nenabled = true\n",
        "[servers.alpha]\nip = \"10.0.0.1\"\n[servers.beta]\nip = \"10.0.0.2\"\n[servers]\nn = 2\n",
        "a.b.c = 1\na.b.d = 2\n\"quoted key\".'lit.eral' = 3\n",
        "[[fruits]]\nname = \"apple\"\n[fruits.physical]\ncolor = \"red\"\n[[fruits.varieties]]\nname = \"red delicious\"\n[[fruits]]\nname = \"banana\"\n",
        "i = [+99, 42, 0, -17, 1_000, 0xDEADBEEF, 0o755, 0b1101]\nf = [1.0, 3.1415, -0.01, 5e+22, 1e06, -2E-2, 6.626e-34]\n",
        "s1 = \"\"\"\nRoses are red\nViolets \\\n   are blue\"\"\"\ns2 = '''\nraw \\n'''\ns3 = \"tab\\t \\u03B4 \\\"\"\n",
        "p = { x = 1, y = 2, z = { w = [1, {q = 'r'}] } }\nempty = {}\n",
        "a = [ # comment\n 1,\n 2, # two\n]\n",
        "\"\" = 1\n", "3.14 = 1\n", "1234 = true\n-x_ = false\n", "a = inf\nb = -inf\n", "[a.\"b.c\".d]\nx = 1\n[ j . k ]\ny = 2\n",
        "[a]\n[a.b]\n[a.b.c]\nx=1\n[d.e]\n[d]\n", "x = \"\"\"\"\"\"\ny = ''''''\n", "[a]\nb.c = 1\n[a.b.d]\ne=2\n",
        "[wireguard]\naddress = [\"10.1.0.254/24\"]\n[[wireguard.peer]]\npublic-key = \"x\"\n[[wireguard.peer]]\npublic-key = \"y\"\n",
        "a = 1\r\nb = \"\"\"x\r\ny\"\"\"\r\n",
    ]

    @Test("a corpus of documents gives the same tree", arguments: corpus)
    func sameTree(text: String) throws {
        let ours = try TOMLReader.read(Array(text.utf8))
        let theirs = try TOMLKit.TOMLTable(string: text)
        #expect(tree(ours) == tree(theirs))
    }

    @Test("what is accepted of mutilated documents is accepted by both with the same tree, and nothing traps")
    func mutilated() {
        let seed: UInt64 = 0x5EED_0002
        let random = RandomSource.seeded(seed)
        let alphabet = Array("[]{}=.,'\"\\#\n\r\t 01ex_-+:abnut".utf8)
        var accepted = 0
        for round in 0..<4000 {
            var bytes = Array(Self.corpus[Int(random.next(below: UInt64(Self.corpus.count)))].utf8)
            for _ in 0...random.next(below: 3) {
                let letter = alphabet[Int(random.next(below: UInt64(alphabet.count)))]
                let index = Int(random.next(below: UInt64(bytes.count + 1)))
                switch random.next(below: 3) {
                case 0: bytes.insert(letter, at: index)
                case 1 where index < bytes.count: bytes.remove(at: index)
                default: if index < bytes.count { bytes[index] = letter }
                }
            }
            guard let ours = try? TOMLReader.read(bytes) else { continue }
            accepted += 1
            let text = String(decoding: bytes, as: UTF8.self)
            let theirs = try? TOMLKit.TOMLTable(string: text)
            #expect(theirs.map(tree) == tree(ours), "seed \(seed), round \(round): \(text.debugDescription)")
        }
        #expect(accepted > 500)
    }

    @Test("random bytes never trap")
    func randomBytes() {
        let random = RandomSource.seeded(0x5EED_0003)
        for _ in 0..<2000 {
            let bytes = (0..<random.next(below: 64)).map { _ in UInt8(truncatingIfNeeded: random.nextUInt32()) }
            _ = try? TOMLReader.read(bytes)
        }
    }

    private func tree(_ table: Proxy.TOMLTable) -> String {
        "{" + table.entries.sorted { $0.key < $1.key }.map { "\($0.key.debugDescription):\(tree($0.value.kind))" }.joined(separator: ",")
            + "}"
    }

    private func tree(_ kind: Proxy.TOMLValue.Kind) -> String {
        switch kind {
        case .string(let text): text.split(separator: "\r\n", omittingEmptySubsequences: false).joined(separator: "\n").debugDescription
        case .integer(let number): "\(number)"
        case .float(let number): "float \(number)"
        case .boolean(let flag): "\(flag)"
        case .array(let elements): "[" + elements.map { tree($0.kind) }.joined(separator: ",") + "]"
        case .table(let table): tree(table)
        }
    }

    private func tree(_ table: TOMLKit.TOMLTable) -> String {
        "{"
            + table.keys.sorted().map { key in "\(key.debugDescription):\(table[key].map { tree($0) } ?? "missing")" }.joined(
                separator: ",")
            + "}"
    }

    private func tree(_ value: any TOMLValueConvertible) -> String {
        switch value.type {
        case .string: value.string?.debugDescription ?? "?"
        case .int: value.int.map { "\($0)" } ?? "?"
        case .double: value.double.map { "float \($0)" } ?? "?"
        case .bool: value.bool.map { "\($0)" } ?? "?"
        case .array: "[" + (value.array.map { array in (0..<array.count).map { tree(array[$0]) } } ?? []).joined(separator: ",") + "]"
        case .table: value.table.map { tree($0) } ?? "?"
        default: "date"
        }
    }
}
