import Logging
import NIOCore
import NIOWireGuard

/// The admin verb `capture`: its arguments as text, and the way of a capture's bytes to its client.
package enum CaptureVerb {
    package static let name = "capture"
    /// Conditions of one capture.
    package static let maximumFilters = 16

    /// The arguments that `options(from:)` reads.
    package static func arguments(_ options: PacketCapture.Options) -> [String: String] {
        var arguments = [
            "filters": options.filters.map(\.description).joined(separator: ","), "bytes": "\(options.maximumBytes)",
            "seconds": "\(options.duration.components.seconds)", "snaplen": "\(options.snapLength)",
        ]
        if let count = options.maximumPackets { arguments["packets"] = "\(count)" }
        return arguments
    }

    package static func options(from arguments: [String: String]) throws(AdminFault) -> PacketCapture.Options {
        var options = PacketCapture.Options()
        let filters = (arguments["filters"] ?? "").split(separator: ",")
        guard filters.count <= maximumFilters else { throw AdminFault(error: "at most \(maximumFilters) filters can be given") }
        for text in filters { options.filters.append(try filter(String(text))) }
        func number(_ key: String, in range: ClosedRange<Int>) throws(AdminFault) -> Int? {
            guard let text = arguments[key] else { return nil }
            guard let value = Int(text), range.contains(value) else {
                throw AdminFault(
                    error: "\(key) \"\(LogText.escape(text, limit: 40))\" is not a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
        options.maximumPackets = try number("packets", in: 1...Int.max).map { UInt64($0) }
        options.maximumBytes = try number("bytes", in: sizes) ?? options.maximumBytes
        options.duration = try number("seconds", in: seconds).map { .seconds($0) } ?? options.duration
        options.snapLength = try number("snaplen", in: snapLengths) ?? options.snapLength
        return options
    }

    package static func filter(_ text: String) throws(AdminFault) -> CaptureFilter {
        guard let filter = CaptureFilter(text) else {
            throw AdminFault(
                error: "\"\(LogText.escape(text, limit: 100))\" is not a filter; write a peer's public key, an address such as 10.1.0.2 "
                    + "or 10.1.0.0/24, or a port from 1 to 65535")
        }
        return filter
    }

    /// Captures for the client of `stream` until one of them ends it.
    static func run(_ request: AdminRequest, _ stream: AdminStream, interface: WireGuardInterface, logger: Logger) async throws {
        let options = try options(from: request.arguments ?? [:])
        let capture = try await interface.capture(options, application: "kakuremichi \(KakuremichiCommand.version)").get()
        // Decrypted traffic leaves the process: that is worth a line.
        logger.notice("A packet capture begins", metadata: ["filter": .array(options.filters.map { "\($0)" })])
        stream.write(Array("{\"format\":\"pcapng\"}\n".utf8))
        capture.deliver { output in
            switch output {
            case .bytes(let bytes): stream.write(bytes).whenComplete { _ in capture.release(bytes.count) }
            case .end(let reason, let counts):
                logger.notice(
                    "A packet capture has ended",
                    metadata: [
                        "reason": "\(reason.rawValue)", "packets": .stringConvertible(counts.written),
                        "dropped": .stringConvertible(counts.dropped),
                    ])
                stream.finish()
            }
        }
        stream.ended.whenComplete { _ in capture.stop() }
    }

    /// Bytes of a file: from some packets to 1 TiB.
    package static let sizes = 4096...(1 << 40)
    /// A day at most.
    package static let seconds = 1...86_400
    package static let snapLengths = 1...PacketCapture.largestPacket
}
