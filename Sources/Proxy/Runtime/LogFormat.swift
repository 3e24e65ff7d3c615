import Glibc
import Logging

/// How log lines look.
package enum LogFormat: String, Sendable, CaseIterable {
    /// For people: time, level, message, `key=value`.
    case text
    /// For machines: one JSON object a line with `time`, `level`, `msg` and the metadata.
    case json

    /// Text on a terminal, JSON otherwise.
    package static func automatic(for descriptor: CInt) -> LogFormat { isatty(descriptor) == 1 ? .text : .json }

    /// The line for one event, with its line end.
    /// - Parameter time: seconds and nanoseconds since 1970.
    package func line(level: Logger.Level, message: String, metadata: Logger.Metadata, time: (seconds: Int, nanoseconds: Int)) -> String {
        let items = metadata.sorted { $0.key < $1.key }
        switch self {
        case .text:
            var line = "\(Timestamp.text(time)) \(level.name.padded(to: 5)) \(LogText.escape(message))"
            for (key, value) in items { line += " \(LogText.escape(key, limit: 64))=\(textValue(LogText.escape(Self.plain(value))))" }
            return line + "\n"
        case .json:
            var line = "{\"time\":\"\(Timestamp.text(time))\",\"level\":\"\(level.name)\",\"msg\":\(JSONText.quoted(message))"
            for (key, value) in items where !Self.reservedKeys.contains(key) {
                line += ",\(JSONText.quoted(key)):\(jsonValue(value, depth: 0))"
            }
            return line + "}\n"
        }
    }

    private static let reservedKeys: Set<String> = ["time", "level", "msg"]

    private static func plain(_ value: Logger.MetadataValue) -> String {
        if case .array(let values) = value { values.prefix(64).map { "\($0)" }.joined(separator: ", ") } else { "\(value)" }
    }

    private func textValue(_ text: String) -> String {
        let isPlain = !text.isEmpty && text.utf8.allSatisfy { $0 > 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=") }
        return isPlain ? text : JSONText.quoted(text)
    }

    private func jsonValue(_ value: Logger.MetadataValue, depth: Int) -> String {
        guard depth < 4 else { return JSONText.quoted("\(value)") }
        switch value {
        case .string(let text): return JSONText.quoted(text)
        case .stringConvertible(let value):
            switch value {
            case let number as Int: return "\(number)"
            case let number as UInt16: return "\(number)"
            case let number as UInt64: return "\(number)"
            case let flag as Bool: return "\(flag)"
            default: return JSONText.quoted("\(value)")
            }
        case .array(let values): return "[" + values.prefix(64).map { jsonValue($0, depth: depth + 1) }.joined(separator: ",") + "]"
        case .dictionary(let items):
            return "{"
                + items.sorted { $0.key < $1.key }.prefix(64).map { "\(JSONText.quoted($0)):\(jsonValue($1, depth: depth + 1))" }
                .joined(separator: ",") + "}"
        }
    }
}

/// Writes events as whole lines to a file descriptor.
package struct LineLogHandler: LogHandler {
    package var logLevel: Logger.Level
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    private let format: LogFormat
    private let output: LineOutput

    package init(level: Logger.Level, format: LogFormat, output: LineOutput) {
        logLevel = level
        self.format = format
        self.output = output
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { _, new in new } }
        if let own = event.metadata { all.merge(own) { _, new in new } }
        if let error = event.error, all["error"] == nil { all["error"] = "\(error)" }
        output.write(format.line(level: event.level, message: "\(event.message)", metadata: all, time: Timestamp.now()))
    }

    /// Sends all loggers of the process to `descriptor`. To be called once.
    package static func bootstrap(_ common: CommonConfiguration, descriptor: CInt = STDOUT_FILENO) {
        let format = common.logFormat ?? .automatic(for: descriptor)
        let output = LineOutput(descriptor: descriptor) { count in
            format.line(
                level: .warning, message: "Log lines were dropped: their reader was too slow", metadata: ["lines": "\(count)"],
                time: Timestamp.now())
        }
        output.flushAtExit()
        let level = common.logLevel
        LoggingSystem.bootstrap { _ in LineLogHandler(level: level, format: format, output: output) }
    }
}

/// RFC 3339 times in UTC, without Foundation.
enum Timestamp {
    static func now() -> (seconds: Int, nanoseconds: Int) {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return (time.tv_sec, time.tv_nsec)
    }

    static func text(_ time: (seconds: Int, nanoseconds: Int)) -> String {
        var seconds = time.seconds
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ value: CInt) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let milliseconds = "\(1000 + time.nanoseconds / 1_000_000)".dropFirst()
        return "\(Int(parts.tm_year) + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T"
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)).\(milliseconds)Z"
    }
}

/// JSON strings whose dangerous characters are escapes, cut to the limit of `LogText`.
enum JSONText {
    static func quoted(_ text: String) -> String {
        var result = "\""
        var count = 0
        for scalar in text.unicodeScalars {
            let piece: String
            switch scalar {
            case "\"": piece = "\\\""
            case "\\": piece = "\\\\"
            case "\n": piece = "\\n"
            case "\t": piece = "\\t"
            case "\r": piece = "\\r"
            default: piece = LogText.mustEscape(scalar) ? unicodeEscape(scalar) : String(Character(scalar))
            }
            count += piece.utf8.count
            if count > LogText.limit { return result + "…\"" }
            result += piece
        }
        return result + "\""
    }

    /// All that must be escaped lies in the basic plane.
    private static func unicodeEscape(_ scalar: Unicode.Scalar) -> String {
        let digits = String(scalar.value, radix: 16)
        return "\\u" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }
}

extension Logger.Level {
    /// As the original writes levels.
    fileprivate var name: String {
        switch self {
        case .trace: "TRACE"
        case .debug: "DEBUG"
        case .info, .notice: "INFO"
        case .warning: "WARN"
        case .error: "ERROR"
        case .critical: "FATAL"
        }
    }
}

extension String {
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
