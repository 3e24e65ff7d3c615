/// Makes text from outside safe to log or show: control characters (C0, DEL, C1), line and paragraph separators and bidirectional
/// controls become visible escapes, and the length is bounded. Invalid UTF-8 shows as U+FFFD.
package enum LogText {
    /// Most bytes of UTF-8 that are kept.
    package static let limit = 1024

    /// - Parameter limit: most bytes of UTF-8 of the result; what is cut is marked by "…".
    package static func escape(_ text: String, limit: Int = limit) -> String {
        if text.utf8.count <= limit, text.utf8.allSatisfy({ (0x20..<0x7F).contains($0) }) { return text }
        var result = ""
        var count = 0
        for scalar in text.unicodeScalars {
            let piece = mustEscape(scalar) ? "\\u{\(String(scalar.value, radix: 16, uppercase: true))}" : String(Character(scalar))
            count += piece.utf8.count
            if count > limit - 3 { return result + "…" }
            result += piece
        }
        return result
    }

    package static func escape(_ bytes: some Sequence<UInt8>) -> String {
        escape(String(decoding: Array(bytes.prefix(limit + 1)), as: UTF8.self))
    }

    static func mustEscape(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7F...0x9F: true
        case 0x061C, 0x200E, 0x200F, 0x202A...0x202E, 0x2066...0x2069: true
        case 0x2028, 0x2029, 0xFEFF: true
        default: false
        }
    }
}
