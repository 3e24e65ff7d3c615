import FoundationEssentials
import Inet
import TestSupport
import Testing

/// The files of `Scripts`, each in IPv4 and IPv6. The numbers are those of the scenarios that every TCP has to get right.
@Suite struct PacketScriptTests {
    /// Scenarios that need more computation than a script is good for.
    static let elsewhere: [Int: String] = [15: "ReceiveScriptTests: overlapping segments give the same bytes in every order"]

    struct Run: CustomTestStringConvertible, Sendable {
        let file: String
        let title: String
        let family: IPAddress.Family
        var testDescription: String { "\(title) [IP\(family)]" }
    }

    static let directory =
        String(#filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")) + "/Scripts"

    static func text(of file: String) -> String {
        String(decoding: FileManager.default.contents(atPath: "\(directory)/\(file)") ?? Data(), as: UTF8.self)
    }

    static let runs: [Run] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return names.filter { $0.hasSuffix(".pkt") }.sorted().flatMap { file in
            let title = text(of: file).prefix { $0 != "\n" }.drop { $0 == "#" || $0 == " " }
            return [IPAddress.Family.v4, .v6].map { Run(file: file, title: String(title), family: $0) }
        }
    }()

    @Test("the stack answers as the script says", arguments: runs)
    func script(_ run: Run) throws {
        try PacketScriptRunner(PacketScript(Self.text(of: run.file)), family: run.family).run()
    }

    @Test("every scenario has a script, and every script its scenario's number and a title")
    func completeness() {
        let numbers = Self.runs.map { Int($0.file.prefix { $0.isNumber }) }
        #expect(Set(numbers.compactMap { $0 }).union(Self.elsewhere.keys).isSuperset(of: 1...65))
        for (run, number) in zip(Self.runs, numbers) {
            if let number { #expect(run.title.hasPrefix("\(number). "), "\(run.file)") }
            #expect(run.title.count > 10, "\(run.file)")
        }
        #expect(Set(Self.runs.map(\.testDescription)).count == Self.runs.count)
    }
}
