/// Strings, numbers, booleans, arrays and inline tables.
extension TOMLReader {
    mutating func value(depth: Int) throws(TOMLError) -> TOMLValue {
        let start = position
        guard depth <= Self.maximumDepth else { throw error(.tooDeep) }
        switch peek() {
        case UInt8(ascii: "\""): return TOMLValue(kind: .string(try basicString(isKey: false)), position: start)
        case UInt8(ascii: "'"): return TOMLValue(kind: .string(try literalString(isKey: false)), position: start)
        case UInt8(ascii: "["): return TOMLValue(kind: .array(try array(depth: depth)), position: start)
        case UInt8(ascii: "{"): return TOMLValue(kind: .table(try inlineTable(depth: depth)), position: start)
        default: return TOMLValue(kind: try scalar(), position: start)
        }
    }

    private mutating func array(depth: Int) throws(TOMLError) -> [TOMLValue] {
        let start = position
        advance()
        var elements: [TOMLValue] = []
        while true {
            try skipLinesAndComments()
            if peek() == UInt8(ascii: "]") { break }
            guard peek() != nil else { throw error(.unclosedArray, at: start) }
            elements.append(try value(depth: depth + 1))
            try skipLinesAndComments()
            switch peek() {
            case UInt8(ascii: ","): advance()
            case UInt8(ascii: "]"): break
            default: throw error(.unclosedArray, at: start)
            }
        }
        advance()
        return elements
    }

    private mutating func inlineTable(depth: Int) throws(TOMLError) -> TOMLTable {
        let start = position
        let table = TableNode(origin: .inline, line: start.line)
        advance()
        skipBlanks()
        if peek() == UInt8(ascii: "}") {
            advance()
            return table.frozen()
        }
        while true {
            try keyAndValue(in: table, depth: depth)
            skipBlanks()
            switch peek() {
            case UInt8(ascii: ","): advance()
            case UInt8(ascii: "}"):
                advance()
                return table.frozen()
            default: throw error(.unclosedTable, at: start)
            }
        }
    }

    // MARK: Strings

    /// `"..."` or `"""..."""`.
    mutating func basicString(isKey: Bool) throws(TOMLError) -> String {
        let start = position
        let isMultiline = !isKey && openString(UInt8(ascii: "\""))
        if isKey { advance() }
        var result: [UInt8] = []
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: "\""):
                if try closeString(byte, isMultiline: isMultiline, result: &result) { return String(decoding: result, as: UTF8.self) }
            case UInt8(ascii: "\\"): try escape(isMultiline: isMultiline, into: &result)
            default: try stringByte(byte, isMultiline: isMultiline, start: start, into: &result)
            }
        }
        throw error(.unclosedString, at: start)
    }

    /// `'...'` or `'''...'''`.
    mutating func literalString(isKey: Bool) throws(TOMLError) -> String {
        let start = position
        let isMultiline = !isKey && openString(UInt8(ascii: "'"))
        if isKey { advance() }
        var result: [UInt8] = []
        while let byte = peek() {
            if byte == UInt8(ascii: "'") {
                if try closeString(byte, isMultiline: isMultiline, result: &result) { return String(decoding: result, as: UTF8.self) }
            } else {
                try stringByte(byte, isMultiline: isMultiline, start: start, into: &result)
            }
        }
        throw error(.unclosedString, at: start)
    }

    /// Passes the opening quotes and, after three, a line end. Whether there were three.
    private mutating func openString(_ quote: UInt8) -> Bool {
        advance()
        guard peek() == quote, peek(1) == quote else { return false }
        advance()
        advance()
        if peek() == 0x0D, peek(1) == 0x0A { advance() }
        if peek() == 0x0A { advance() }
        return true
    }

    /// At a quote: ends the string, or takes the quote as text. Up to two quotes may stand right before the closing three.
    private mutating func closeString(_ quote: UInt8, isMultiline: Bool, result: inout [UInt8]) throws(TOMLError) -> Bool {
        advance()
        guard isMultiline else { return true }
        guard peek() == quote, peek(1) == quote else {
            result.append(quote)
            return false
        }
        advance()
        advance()
        for _ in 0..<2 where peek() == quote {
            result.append(quote)
            advance()
        }
        return true
    }

    private mutating func stringByte(_ byte: UInt8, isMultiline: Bool, start: TOMLPosition, into result: inout [UInt8]) throws(TOMLError) {
        switch byte {
        case 0x0A:
            guard isMultiline else { throw error(.unclosedString, at: start) }
        case 0x0D:
            guard peek(1) == 0x0A else { throw error(.controlCharacter) }
            guard isMultiline else { throw error(.unclosedString, at: start) }
        default:
            if isControl(byte) { throw error(.controlCharacter) }
        }
        result.append(byte)
        advance()
    }

    private mutating func escape(isMultiline: Bool, into result: inout [UInt8]) throws(TOMLError) {
        let start = position
        advance()
        guard let byte = peek() else { throw error(.unclosedString, at: start) }
        switch byte {
        case UInt8(ascii: "b"): result.append(0x08)
        case UInt8(ascii: "t"): result.append(0x09)
        case UInt8(ascii: "n"): result.append(0x0A)
        case UInt8(ascii: "f"): result.append(0x0C)
        case UInt8(ascii: "r"): result.append(0x0D)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): result.append(byte)
        case UInt8(ascii: "u"): try unicodeEscape(digits: 4, start: start, into: &result)
        case UInt8(ascii: "U"): try unicodeEscape(digits: 8, start: start, into: &result)
        default:
            guard isMultiline, try lineContinuation() else { throw error(.badEscape, at: start) }
            return
        }
        advance()
    }

    /// Leaves the offset at the last digit.
    private mutating func unicodeEscape(digits: Int, start: TOMLPosition, into result: inout [UInt8]) throws(TOMLError) {
        var code: UInt32 = 0
        for _ in 0..<digits {
            advance()
            guard let byte = peek(), let digit = hexadecimalValue(byte) else { throw error(.badEscape, at: start) }
            code = code << 4 | UInt32(digit)
        }
        guard let scalar = Unicode.Scalar(code) else { throw error(.badEscape, at: start) }
        result.append(contentsOf: Array(String(Character(scalar)).utf8))
    }

    /// A backslash at the end of a line swallows all blanks and line ends up to the next text.
    private mutating func lineContinuation() throws(TOMLError) -> Bool {
        skipBlanks()
        guard peek() == 0x0A || (peek() == 0x0D && peek(1) == 0x0A) else { return false }
        while let byte = peek(), byte == 0x20 || byte == 0x09 || byte == 0x0A || (byte == 0x0D && peek(1) == 0x0A) { advance() }
        return true
    }

    // MARK: Numbers and booleans

    private mutating func scalar() throws(TOMLError) -> TOMLValue.Kind {
        let start = position
        let first = offset
        while let byte = peek(), !isEndOfScalar(byte) { advance() }
        let text = bytes[first..<offset]
        guard let lead = text.first else { throw error(.expectedValue, at: start) }
        switch String(decoding: text, as: UTF8.self) {
        case "true": return .boolean(true)
        case "false": return .boolean(false)
        case "inf", "+inf": return .float(.infinity)
        case "-inf": return .float(-.infinity)
        case "nan", "+nan", "-nan": return .float(.nan)
        default: break
        }
        guard isDigit(lead) || lead == UInt8(ascii: "+") || lead == UInt8(ascii: "-") else { throw error(.expectedValue, at: start) }
        if looksLikeDate(text) { throw error(.dateNotSupported, at: start) }
        if lead == UInt8(ascii: "0"), text.count > 1, let radix = radix(of: text[text.startIndex + 1]) {
            return .integer(try integer(text.dropFirst(2), radix: radix, sign: nil, at: start))
        }
        let hasSign = !isDigit(lead)
        let magnitude = hasSign ? text.dropFirst() : text
        if magnitude.allSatisfy({ isDigit($0) || $0 == UInt8(ascii: "_") }) {
            if magnitude.count > 1, magnitude.first == UInt8(ascii: "0") { throw error(.badNumber, at: start) }
            return .integer(try integer(magnitude, radix: 10, sign: hasSign ? lead : nil, at: start))
        }
        return .float(try float(magnitude, isNegative: lead == UInt8(ascii: "-"), at: start))
    }

    private func isEndOfScalar(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x20, 0x09, 0x0A, 0x0D, UInt8(ascii: ","), UInt8(ascii: "]"), UInt8(ascii: "}"), UInt8(ascii: "#"): true
        default: false
        }
    }

    private func radix(of letter: UInt8) -> UInt64? {
        switch letter {
        case UInt8(ascii: "x"): 16
        case UInt8(ascii: "o"): 8
        case UInt8(ascii: "b"): 2
        default: nil
        }
    }

    private func integer(_ digits: ArraySlice<UInt8>, radix: UInt64, sign: UInt8?, at start: TOMLPosition) throws(TOMLError) -> Int64 {
        let isNegative = sign == UInt8(ascii: "-")
        let limit = UInt64(Int64.max) + (isNegative ? 1 : 0)
        var magnitude: UInt64 = 0
        for byte in try withoutUnderscores(digits, radix: radix, at: start) {
            guard let digit = hexadecimalValue(byte), digit < radix else { throw error(.badNumber, at: start) }
            let (product, overflow) = magnitude.multipliedReportingOverflow(by: radix)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
            guard !overflow, !carry, sum <= limit else { throw error(.integerOutOfRange, at: start) }
            magnitude = sum
        }
        return isNegative ? Int64(truncatingIfNeeded: 0 &- magnitude) : Int64(magnitude)
    }

    private func float(_ text: ArraySlice<UInt8>, isNegative: Bool, at start: TOMLPosition) throws(TOMLError) -> Double {
        let mantissa = text.prefix { $0 | 0x20 != UInt8(ascii: "e") }
        let parts = mantissa.split(separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        guard let whole = parts.first, whole.count == 1 || whole.first != UInt8(ascii: "0") else { throw error(.badNumber, at: start) }
        var digits = try decimalDigits(whole, at: start)
        if parts.count == 2 { digits += [UInt8(ascii: ".")] + (try decimalDigits(parts[1], at: start)) }
        if mantissa.endIndex < text.endIndex {
            var exponent = text[(mantissa.endIndex + 1)...]
            digits.append(UInt8(ascii: "e"))
            if let sign = exponent.first, sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") {
                digits.append(sign)
                exponent = exponent.dropFirst()
            }
            digits += try decimalDigits(exponent, at: start)
        }
        guard let value = Double(String(decoding: digits, as: UTF8.self)) else { throw error(.badNumber, at: start) }
        return isNegative ? -value : value
    }

    private func decimalDigits(_ text: ArraySlice<UInt8>, at start: TOMLPosition) throws(TOMLError) -> [UInt8] {
        let digits = try withoutUnderscores(text, radix: 10, at: start)
        guard digits.allSatisfy(isDigit) else { throw error(.badNumber, at: start) }
        return digits
    }

    /// An underscore must stand between two digits.
    private func withoutUnderscores(_ text: ArraySlice<UInt8>, radix: UInt64, at start: TOMLPosition) throws(TOMLError) -> [UInt8] {
        let groups = text.split(separator: UInt8(ascii: "_"), omittingEmptySubsequences: false)
        guard groups.allSatisfy({ !$0.isEmpty }) else { throw error(.badNumber, at: start) }
        return groups.flatMap { $0 }
    }

    /// `1979-05-27...` or `07:32...`.
    private func looksLikeDate(_ text: ArraySlice<UInt8>) -> Bool {
        let bytes = Array(text)
        if bytes.count >= 5, bytes[..<4].allSatisfy(isDigit), bytes[4] == UInt8(ascii: "-") { return true }
        return bytes.count >= 3 && bytes[..<2].allSatisfy(isDigit) && bytes[2] == UInt8(ascii: ":")
    }

    private func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    private func hexadecimalValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }
}
