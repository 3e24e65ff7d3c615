/// Where something stands in a file; the first line and column are 1. Columns count characters.
package struct TOMLPosition: Hashable, Sendable, CustomStringConvertible {
    package var line: Int
    package var column: Int

    package init(line: Int, column: Int) {
        self.line = line
        self.column = column
    }

    package var description: String { "\(line):\(column)" }
}

/// A value with the place where it is written.
package struct TOMLValue: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case string(String)
        case integer(Int64)
        case float(Double)
        case boolean(Bool)
        case array([TOMLValue])
        case table(TOMLTable)
    }

    package var kind: Kind
    package var position: TOMLPosition

    /// What the value is, with its article, for a message.
    package var typeName: String {
        switch kind {
        case .string: "a string"
        case .integer: "an integer"
        case .float: "a float"
        case .boolean: "a boolean"
        case .array: "an array"
        case .table: "a table"
        }
    }
}

/// A table in the order of the file.
package struct TOMLTable: Sendable, Equatable {
    package struct Entry: Sendable, Equatable {
        package var key: String
        package var keyPosition: TOMLPosition
        package var value: TOMLValue
    }

    package private(set) var entries: [Entry]
    private var indices: [String: Int]

    package init(_ entries: [Entry] = []) {
        self.entries = entries
        indices = Dictionary(entries.enumerated().map { ($1.key, $0) }, uniquingKeysWith: { first, _ in first })
    }

    package var keys: [String] { entries.map(\.key) }
    package func entry(_ key: String) -> Entry? { indices[key].map { entries[$0] } }
    package subscript(key: String) -> TOMLValue? { entry(key)?.value }
}

/// Why a document cannot be read.
package struct TOMLError: Error, Hashable, CustomStringConvertible {
    package enum Reason: Hashable, Sendable {
        case tooLarge
        case notUTF8
        case tooDeep
        case controlCharacter
        case expectedKey
        case expectedEquals
        case expectedValue
        case expectedEndOfLine
        case unclosedHeader
        case unclosedString
        case unclosedArray
        case unclosedTable
        case badEscape
        case badNumber
        case integerOutOfRange
        case dateNotSupported
        /// The key was given before, at that line.
        case repeatedKey(String, firstLine: Int)
        /// The key holds something that cannot be extended.
        case notATable(String, firstLine: Int)
    }

    package var position: TOMLPosition
    package var reason: Reason

    package init(position: TOMLPosition, reason: Reason) {
        self.position = position
        self.reason = reason
    }

    package var description: String { "\(position): \(message)" }

    /// What is wrong and what to write instead.
    package var message: String {
        switch reason {
        case .tooLarge: "the file is larger than \(TOMLReader.maximumSize) bytes; split it"
        case .notUTF8: "not UTF-8 text; save the file as UTF-8"
        case .tooDeep: "nested more than \(TOMLReader.maximumDepth) levels deep; flatten it"
        case .controlCharacter: "a control character; write it as an escape such as \\u001B in a \"string\""
        case .expectedKey: "a key is expected here; write KEY = VALUE, [TABLE], or # before a comment"
        case .expectedEquals: "= is expected here; write KEY = VALUE"
        case .expectedValue: "a value is expected here; write a \"string\", a number, true, false, [an array] or {a table}"
        case .expectedEndOfLine: "the line should end here; write one KEY = VALUE a line, and text in quotes"
        case .unclosedHeader: "the table header is not closed; write [TABLE] or [[TABLE]]"
        case .unclosedString: "the string is not closed; end it with the quotes it began with"
        case .unclosedArray: "the array is not closed or lacks a comma; write [VALUE, VALUE]"
        case .unclosedTable: "the inline table is not closed or lacks a comma; write {KEY = VALUE, KEY = VALUE} in one line"
        case .badEscape: "no such escape; write \\\\ for a backslash, or use 'single quotes'"
        case .badNumber: "not a number; put text in quotes, and write numbers like 42, 1_000, 0x2A or 1.5"
        case .integerOutOfRange: "the integer does not fit in 64 bits; write a smaller one"
        case .dateNotSupported: "dates and times are not used in this file; put the text in quotes"
        case .repeatedKey(let key, let line): "\(LogText.escape(key, limit: 40)) is given twice (first in line \(line)); remove one of them"
        case .notATable(let key, let line):
            "\(LogText.escape(key, limit: 40)) cannot be extended (it is complete since line \(line)); write all of it in one place"
        }
    }
}
