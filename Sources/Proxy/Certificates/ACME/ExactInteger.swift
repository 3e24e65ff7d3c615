/// An integer in a JSON document that somebody else wrote. It is read as a floating-point number, exact up to 2^53: Foundation's decoder
/// of integers ends the process at some larger numbers with an exponent.
@propertyWrapper package struct ExactInteger: Codable, Hashable, Sendable {
    package var wrappedValue: Int

    package init(wrappedValue: Int) { self.wrappedValue = wrappedValue }

    /// - Throws: `DecodingError` for fractions, and for what an `Int` cannot hold.
    package init(from decoder: any Decoder) throws {
        guard let value = Int(exactly: try Double(from: decoder)) else {
            throw DecodingError.dataCorrupted(.init(codingPath: decoder.codingPath, debugDescription: "not an integer"))
        }
        wrappedValue = value
    }

    package func encode(to encoder: any Encoder) throws { try wrappedValue.encode(to: encoder) }
}
