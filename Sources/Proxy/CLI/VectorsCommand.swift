import ArgumentParser
import Glibc
import Vectors

struct VectorsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vectors",
        abstract: "Runs and writes test vectors of Noise and WireGuard.",
        subcommands: [Run.self, Generate.self])

    struct Run: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Runs the vectors of files and says what differs.",
            discussion: """
                Reads Noise vectors as flynn/noise text or in the JSON form of cacophony and snow, and WireGuard vectors \
                in the form of this project's vectors/wireguard.json; the content tells which.

                Prints a line for each failed case, with the first step and byte that differ, one for each file, and a sum. \
                Of a file at most \(VectorReport.maximumFailures) failures are printed, of a run \(VectorsSummary.maximumFailures); how \
                many are left out is said. What needs an algorithm that is not there is counted as skipped, never as passed. \
                The exit code is 1 if a case failed, a file could not be used, or all was skipped.

                Reads at most \(VectorRunner.maximumFileSize >> 20) MB and \(VectorRunner.maximumCases) cases of a file, \
                \(VectorFiles.maximumFiles) files and \(VectorsSummary.maximumCases) cases in a run.

                Examples:
                  kakuremichi vectors run vectors/
                  kakuremichi vectors run --json cacophony.txt
                  kakuremichi vectors generate --seed 1 | kakuremichi vectors run -
                """)

        @Argument(help: ArgumentHelp("Files, directories (all *.json and *.txt below them), or - for standard input.", valueName: "path"))
        var paths: [String]

        @Flag(help: "Prints JSON: an object for each file on a line, and one for the sum.")
        var json = false

        func run() throws {
            var summary = VectorsSummary()
            for path in paths {
                do throws(VectorFileFault) {
                    guard summary.fileRoom > 0 else { throw summary.isFull(path) }
                    for file in try VectorFiles.find(path, limit: summary.fileRoom) {
                        guard summary.caseRoom > 0 else { throw summary.isFull(file) }
                        summary.add(run(file, maximumCases: min(summary.caseRoom, VectorRunner.maximumCases)), json: json)
                    }
                } catch {
                    summary.add(VectorFileResult(path: error.path, fault: error.reason), json: json)
                    // The one line stands for all that follows.
                    if summary.fileRoom <= 0 || summary.caseRoom <= 0 { break }
                }
            }
            summary.printTotal(json: json)
            if !summary.isGood { throw ExitCode(1) }
        }

        private func run(_ path: String, maximumCases: Int) -> VectorFileResult {
            let progress = ProgressLine(path)
            defer { progress.clear() }
            do {
                let bytes = try VectorFiles.read(path)
                return VectorFileResult(
                    path: path, report: VectorRunner.run(bytes, maximumCases: maximumCases) { progress.show($0, of: $1) })
            } catch {
                return VectorFileResult(path: error.path, fault: error.reason)
            }
        }
    }

    struct Generate: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Writes WireGuard vectors from a seed, for tests only.",
            discussion: """
                The same seed gives the same file on every machine. Anybody can compute its keys: never configure one.

                A file has at most \(WireGuardGenerator.counts.upperBound) handshakes, so that vectors run can read it again.

                Example:
                  kakuremichi vectors generate --seed 1 --count 4 --out wireguard-1.json
                """)

        @Option(help: "A number, 0 to 2^64 - 1.")
        var seed: UInt64

        @Option(help: "Handshakes, 1 to \(WireGuardGenerator.counts.upperBound); every second one has a pre-shared key.")
        var count = 6

        @Option(help: ArgumentHelp("File to write; it must not exist. (default: standard output)", valueName: "file"))
        var out: String?

        func validate() throws {
            guard WireGuardGenerator.counts.contains(count) else {
                let most = WireGuardGenerator.counts.upperBound
                throw ValidationError("--count is 1 to \(most): vectors run cannot read a larger file. Write more files, with other seeds.")
            }
        }

        func run() throws {
            let document: String
            do {
                document = try WireGuardGenerator.document(seed: seed, count: count).document
            } catch {
                throw CommandFailure("the handshake fails: \(error.description)")
            }
            if let out {
                try SystemFiles.create(out, Array(document.utf8))
            } else {
                print(document, terminator: "")
            }
        }
    }
}

/// How far a long run is, on standard error and only if that is a terminal.
private final class ProgressLine {
    private let name: String
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let output = LineOutput(descriptor: STDERR_FILENO)
    private var shown = -1

    init(_ path: String) { name = LogText.escape(path) }

    func show(_ done: Int, of total: Int) {
        guard isTerminal, total > 1 else { return }
        let percent = done * 100 / total
        guard percent != shown else { return }
        shown = percent
        output.write("\r\(name): \(percent) %")
    }

    func clear() {
        if shown >= 0 { output.write("\r\u{1B}[K") }
    }
}
