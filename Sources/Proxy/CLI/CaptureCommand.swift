import ArgumentParser
import Glibc
import NIOPosix
import NIOWireGuard

struct CaptureCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capture",
        abstract: "Writes the packets inside the tunnel of a running process to a pcapng file.",
        discussion: """
            What is captured is decrypted: HTTP requests, cookies and bodies can be read in it. The file is made with mode 0600 and \
            never overwrites another; the process is asked over its admin socket and opens no file itself.

            The capture ends with Ctrl-C, after --count packets, after --duration (10 minutes if none is given), or when the file \
            has --max-size (256M if none is given). Packets that are written too slowly are left out and counted; the tunnel \
            never waits. Each packet has its direction and its peer as comment.

            Examples:
              kakuremichi capture --out tunnel.pcapng
              kakuremichi capture --out - --filter 10.1.0.2 --filter 80 | tshark -r -
              kakuremichi capture --out - | wireshark -k -i -
              kakuremichi capture --out head.pcapng --snaplen 96 --duration 1h --state ./state
            """)

    @Option(help: ArgumentHelp("File to write; it must not exist. - is standard output.", valueName: "file"))
    var out: String

    @Option(
        help: ArgumentHelp(
            "Only packets of a peer (public key), an address or block (10.1.0.2, fd00::/64), or a port. Repeatable: all must match.",
            valueName: "peer|ip|port"))
    var filter: [String] = []

    @Option(help: ArgumentHelp("State directory of the process. (default: those of all roles of this user)", valueName: "dir"))
    var state: String?

    @Option(help: ArgumentHelp("Ends after so many packets.", valueName: "packets"))
    var count: UInt64?

    @Option(help: ArgumentHelp("Ends after this time: seconds, or 90s, 5m, 2h; 24h at most. (default: 10m)", valueName: "time"))
    var duration: String?

    @Option(help: ArgumentHelp("Ends when the file would be larger: bytes, or 500K, 64M, 2G. (default: 256M)", valueName: "bytes"))
    var maxSize: String?

    @Option(help: ArgumentHelp("Bytes to keep of a packet; 96 holds the headers. (default: all)", valueName: "bytes"))
    var snaplen: Int?

    func validate() throws { _ = try options() }

    func options() throws -> PacketCapture.Options {
        var options = PacketCapture.Options()
        do throws(AdminFault) {
            for text in filter { options.filters.append(try CaptureVerb.filter(text)) }
        } catch {
            throw ValidationError(error.error)
        }
        guard filter.count <= CaptureVerb.maximumFilters else {
            throw ValidationError("--filter can be given \(CaptureVerb.maximumFilters) times at most")
        }
        guard (1...UInt64(Int.max)).contains(count ?? 1) else { throw ValidationError("--count is at least 1") }
        options.maximumPackets = count
        if let duration {
            let units = ["s": 1, "m": 60, "h": 3600]
            guard let seconds = Self.number(duration, units: units), CaptureVerb.seconds.contains(seconds) else {
                throw ValidationError("--duration is 1s to 24h; write seconds, or a number with s, m or h, such as 5m")
            }
            options.duration = .seconds(seconds)
        }
        if let maxSize {
            let units = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30]
            guard let bytes = Self.number(maxSize, units: units), CaptureVerb.sizes.contains(bytes) else {
                throw ValidationError("--max-size is 4K to 1024G; write bytes, or a number with K, M or G, such as 64M")
            }
            options.maximumBytes = bytes
        }
        if let snaplen {
            guard CaptureVerb.snapLengths.contains(snaplen) else {
                throw ValidationError("--snaplen is \(CaptureVerb.snapLengths.lowerBound) to \(CaptureVerb.snapLengths.upperBound)")
            }
            options.snapLength = snaplen
        }
        return options
    }

    private static func number(_ text: String, units: [String: Int]) -> Int? {
        let unit = text.last.flatMap { units[String($0)] }
        let digits = unit == nil ? text[...] : text.dropLast()
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(digits) else { return nil }
        let (product, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
        return overflow ? nil : product
    }

    func run() async throws {
        signal(SIGPIPE, SIG_IGN)
        let signals = ShutdownSignals()
        let options = try options()
        let path = try AdminSocket.only(state, environment: ConfigurationInput.processEnvironment)
        var pair: [CInt] = [-1, -1]
        guard pipe(&pair) == 0 else { throw CommandFailure("no pipe: \(systemMessage(errno))") }
        let (stop, stopper) = (pair[0], pair[1])
        let waiting = Task {
            await signals.wait()
            Glibc.write(stopper, "\n", 1)
        }
        defer { waiting.cancel() }
        let out = out
        let errors = LineOutput(descriptor: STDERR_FILENO)
        let isTerminal = isatty(STDERR_FILENO) == 1
        let (summary, name) = try await NIOThreadPool.singleton.runIfActive {
            let client: CaptureClient
            do { client = try CaptureClient(options, at: path) } catch { throw CommandFailure("\(LogText.escape(path)): \(error)") }
            let output = try CaptureOutput(out)
            if isTerminal { errors.write("capturing to \(output.name), Ctrl-C ends it\n") }
            let summary = try client.run(to: output, stop: stop) { if isTerminal { errors.write("\r\($0.text)\u{1B}[K") } }
            return (summary, output.name)
        }
        errors.write("\(isTerminal ? "\r\u{1B}[K" : "")\(name): \(summary.text)\n")
        // Without the counts at its end, what came is whole, but it was cut off.
        guard summary.end != nil || summary.isOutputGone else {
            throw CommandFailure("the process went away before the end; \(name) holds what it sent until then")
        }
    }
}

extension CaptureClient.Summary {
    var text: String { "\(packets) packets, \(bytes) bytes, \(dropped) dropped" }
}
