import FoundationEssentials
import Logging
import Proxy
import Testing

/// Keeps what is logged.
struct RecordingLog: LogHandler {
    final class Lines: @unchecked Sendable {
        // Tests log from one thread at a time.
        var all: [(level: Logger.Level, text: String, metadata: Logger.Metadata)] = []
        func texts(_ level: Logger.Level) -> [String] { all.filter { $0.level == level }.map(\.text) }
    }

    let lines: Lines
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { lines.all.append((event.level, event.message.description, event.metadata ?? [:])) }
}

@Suite struct CertificateSelectorTests {
    private let directory: ScratchDirectory
    private let clock = TestClock()
    private let lines = RecordingLog.Lines()

    init() throws { directory = try ScratchDirectory() }

    private func makeSelector(_ domains: [String], files: [CertificateFiles] = [], capacity: Int = 8) throws -> CertificateSelector {
        let configuration = TLSFrontConfiguration(
            domains: domains, certificates: files, stateDirectory: directory.file("state"), leafCacheCapacity: capacity)
        let clock = clock
        return try CertificateSelector(
            configuration: configuration, logger: Logger(label: "test") { [lines] _ in RecordingLog(lines: lines) }, clock: { clock.now })
    }

    private func choose(_ selector: CertificateSelector, _ name: String?) -> String {
        switch selector.choose(serverName: name.map { Array($0.utf8) }) {
        case .show(let certificate, _): certificate.names.map(\.name).joined(separator: ",")
        case .wait: "wait"
        case .refuse(let alert, _): "alert \(alert.rawValue)"
        }
    }

    @Test("the internal CA answers known domains, in any case, and nothing else")
    func internalNames() throws {
        let selector = try makeSelector(["app.example.com", "*.wild.example"])
        #expect(choose(selector, "APP.example.com") == "app.example.com")
        #expect(choose(selector, "a.wild.example") == "*.wild.example")
        for unknown in ["other.example", "a.b.wild.example", "wild.example", "127.0.0.1", "app.example.com\u{e4}", "-"] {
            #expect(choose(selector, unknown) == "alert 112", "\(unknown)")
        }
        #expect(choose(selector, nil) == "alert 109")
    }

    @Test("a host is covered only by the certificate of its own server name")
    func covers() throws {
        let selector = try makeSelector(["app.example.com", "b.example", "*.wild.example"])
        #expect(selector.covers(host: "App.Example.com.", sni: "app.example.com"))
        #expect(!selector.covers(host: "b.example", sni: "app.example.com"))
        #expect(selector.covers(host: "x.wild.example", sni: "y.wild.example"))
        #expect(!selector.covers(host: "app.example.com", sni: nil))
    }

    @Test("a leaf is made once and again before it ends")
    func renewal() throws {
        let selector = try makeSelector(["app.example.com"])
        func end() throws -> Date {
            guard case .show(let certificate, "app.example.com") = selector.choose(serverName: Array("app.example.com".utf8)) else {
                throw FixtureError(text: "refused")
            }
            return certificate.notValidAfter
        }
        let first = try end()
        #expect(first == testNow + 7 * day)
        clock.advance(by: 4 * day)
        #expect(try end() == first)
        clock.advance(by: 1 * day)
        #expect(try end() == first + 5 * day)
        #expect(selector.cachedLeaves == 1)
    }

    @Test("the leaf cache keeps to its bound, and forgets what was used longest ago")
    func bound() throws {
        let names = (0..<5).map { "d\($0).example" }
        let selector = try makeSelector(names, capacity: 3)
        func end(_ name: String) throws -> Date {
            guard case .show(let certificate, _) = selector.choose(serverName: Array(name.utf8)) else { throw FixtureError(text: name) }
            return certificate.notValidAfter
        }
        for name in names.prefix(3) { _ = try end(name) }
        clock.advance(by: 1)
        _ = try end(names[0])
        _ = try end(names[3])
        #expect(selector.cachedLeaves == 3)
        clock.advance(by: 1)
        #expect(try end(names[0]) == testNow + 7 * day)
        #expect(try end(names[1]) == testNow + 7 * day + 2)
        #expect(selector.cachedLeaves == 3)
    }

    @Test("the log tells of the start, the domains and a new root, in the expected words")
    func log() throws {
        let selector = try makeSelector(["app.example.com"])
        #expect(lines.texts(.info) == ["Certificate manager created", "Updating host policy"])
        #expect(lines.all[0].metadata == ["cacheDir": "\(directory.file("state"))", "email": ""])
        #expect(lines.all[1].metadata == ["domains": ["app.example.com"]])
        #expect(lines.texts(.notice) == ["Internal CA created; clients must trust this file"])
        try selector.update(domains: ["app.example.com"])
        #expect(lines.texts(.info).count == 2)
        try selector.update(domains: ["app.example.com", "new.example"])
        #expect(lines.texts(.warning) == ["Internal CA replaced; clients must trust the new file"])
        #expect(lines.all.last?.metadata["reason"] == "its name constraints do not permit new.example")
        #expect(choose(selector, "new.example") == "new.example")
        try selector.update(domains: ["new.example"])
        #expect(choose(selector, "app.example.com") == "alert 112")
        #expect(lines.texts(.warning).count == 1)
    }

    @Test("without domains there is no CA, and everything is refused")
    func noDomains() throws {
        let selector = try makeSelector([])
        #expect(choose(selector, "app.example.com") == "alert 112")
        #expect(directory.names == [])
        try selector.update(domains: ["app.example.com"])
        #expect(choose(selector, "app.example.com") == "app.example.com")
    }

    @Test("a refresh replaces the root of a long-running gateway, and its leaves with it")
    func refresh() throws {
        let selector = try makeSelector(["app.example.com"])
        let before = try directory.read("state/internal-ca.pem")
        try selector.refresh()
        #expect(try directory.read("state/internal-ca.pem") == before)
        clock.advance(by: 340 * day)
        _ = choose(selector, "app.example.com")
        try selector.refresh()
        #expect(try directory.read("state/internal-ca.pem") != before)
        #expect(selector.cachedLeaves == 0)
        #expect(selector.expiries.map(\.notValidAfter) == [testNow + 705 * day])
    }

    @Test("a file that stands in several tables has one end for metrics")
    func expiries() throws {
        try directory.writePair("a", for: ["a.example", "b.example"])
        try directory.writePair("c", for: ["c.example"], until: testNow + 50 * day)
        let files = [directory.pair("a", domain: "a.example"), directory.pair("a", domain: "b.example"), directory.pair("c")]
        let selector = try makeSelector(["a.example", "b.example", "c.example"], files: files)
        #expect(selector.expiries.map(\.source) == [directory.file("a.pem"), directory.file("c.pem")])
        #expect(selector.expiries.map(\.notValidAfter) == [testNow + 90 * day, testNow + 50 * day])
    }

    @Test("configured certificates are the only ones: no internal CA for what they do not cover")
    func filesOnly() throws {
        try directory.writePair("a", for: ["app.example.com", "www.example.com"])
        let selector = try makeSelector(["app.example.com", "b.example"], files: [directory.pair("a")])
        #expect(choose(selector, "app.example.com") == "app.example.com,www.example.com")
        #expect(choose(selector, "b.example") == "alert 112")
        #expect(choose(selector, "www.example.com") == "alert 112", "covered, but it has no tunnel")
        #expect(choose(selector, nil) == "alert 109")
        #expect(directory.names == ["a.key", "a.pem"])
        #expect(
            lines.texts(.warning) == [
                "No configured certificate covers this domain: its clients get TLS alert 112. Add a certificate for it"
            ])
        #expect(selector.internalCAPath == nil)
    }

    @Test("a certificate under its own domain goes before one that merely names it, an exact name before a wildcard")
    func precedence() throws {
        try directory.writePair("wild", for: ["*.example.com", "app.example.com"])
        try directory.writePair("own", for: ["app.example.com"])
        let files = [directory.pair("wild"), directory.pair("own", domain: "app.example.com")]
        let selector = try makeSelector(["app.example.com", "b.example.com"], files: files)
        #expect(choose(selector, "app.example.com") == "app.example.com")
        #expect(choose(selector, "b.example.com") == "*.example.com,app.example.com")
    }

    @Test("a default certificate is for clients without a server name, not for unknown names")
    func defaultCertificate() throws {
        try directory.writePair("a", for: ["app.example.com"])
        let selector = try makeSelector(["app.example.com"], files: [directory.pair("a", isDefault: true)])
        #expect(choose(selector, nil) == "app.example.com")
        #expect(choose(selector, "other.example") == "alert 112")
        #expect(selector.covers(host: "app.example.com", sni: nil))
    }

    @Test("a refresh reads new certificate files, and keeps the old ones if the new ones are broken")
    func refreshFiles() throws {
        try directory.writePair("a", for: ["app.example.com"])
        let selector = try makeSelector(["app.example.com", "b.example"], files: [directory.pair("a")])
        try directory.write("broken", to: "a.pem")
        #expect(throws: CertificateFileError.self) { try selector.refresh() }
        #expect(choose(selector, "app.example.com") == "app.example.com")
        try directory.writePair("a", for: ["app.example.com", "b.example"])
        try selector.refresh()
        #expect(choose(selector, "b.example") == "app.example.com,b.example")
    }

    @Test("the list of certificates changes while it is used: other files, and from and to the internal CA; a bad one changes nothing")
    func changeCertificates() throws {
        try directory.writePair("a", for: ["a.example"])
        try directory.writePair("b", for: ["a.example", "b.example"])
        let selector = try makeSelector(["a.example"])
        #expect(selector.internalCAPath != nil)
        try selector.update(domains: ["a.example"], certificates: [directory.pair("a")])
        #expect(selector.internalCAPath == nil)
        #expect(choose(selector, "a.example") == "a.example")
        try selector.update(domains: ["a.example", "b.example"], certificates: [directory.pair("b")])
        #expect(choose(selector, "b.example") == "a.example,b.example")
        #expect(throws: CertificateFileError.self) { try selector.update(domains: ["c.example"], certificates: [directory.pair("none")]) }
        #expect(choose(selector, "b.example") == "a.example,b.example")
        #expect(choose(selector, "c.example") == "alert 112")
        try directory.writePair("b", for: ["b.example"])
        try selector.refresh()
        #expect(choose(selector, "a.example") == "alert 112", "a refresh reads the files of the new list")
        try selector.update(domains: ["b.example"], certificates: [])
        #expect(choose(selector, "b.example") == "b.example")
        #expect(selector.internalCAPath != nil && selector.cachedLeaves == 1)
        try selector.update(domains: ["b.example"], certificates: [])
        #expect(selector.cachedLeaves == 1, "the same internal CA keeps its leaves")
    }

    @Test("a domain that is none is an error that shows how to write one")
    func invalidDomain() throws {
        #expect(throws: CertificateFileError.invalidDomain("exämple.com")) { try makeSelector(["exämple.com"]) }
    }
}
