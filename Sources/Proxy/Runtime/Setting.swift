import Inet

/// One setting as it was given: the text of a flag or variable, or a value of the file, with its place.
package struct Setting: Sendable {
    package enum Value: Sendable {
        case text(String)
        case toml(TOMLValue)
    }

    package var value: Value
    package var origin: ConfigurationFault.Origin
    package var key: String

    package func fault(_ problem: String, fix: String) -> ConfigurationFault { ConfigurationFault(origin, key: key, problem, fix: fix) }

    /// The file that the setting stands in: its paths are relative to that file.
    package var file: String? {
        if case .file(let path, _) = origin { return path }
        return nil
    }

    // MARK: Conversions; each throws what to write instead.

    /// - Parameter mayBeEmpty: whether an empty text says something. Mostly it is a variable that was not set where the file was made.
    package func string(_ expected: String, mayBeEmpty: Bool = false) throws(ConfigurationFault) -> String {
        let result: String
        switch value {
        case .text(let text): result = text
        case .toml(let value):
            guard case .string(let text) = value.kind else { throw wrongType(value, "a string: \(expected)") }
            result = text
        }
        guard mayBeEmpty || !result.isEmpty else { throw fault("is empty", fix: "write \(expected)") }
        return result
    }

    package func integer(in range: ClosedRange<Int>) throws(ConfigurationFault) -> Int {
        let fix = "write an integer from \(range.lowerBound) to \(range.upperBound)"
        switch value {
        case .text(let text):
            guard let number = Int(text), range.contains(number) else { throw fault("\(Self.quoted(text)) is not valid", fix: fix) }
            return number
        case .toml(let value):
            guard case .integer(let number) = value.kind else {
                throw wrongType(value, "an integer from \(range.lowerBound) to \(range.upperBound)")
            }
            guard let number = Int(exactly: number), range.contains(number) else { throw fault("\(number) is out of range", fix: fix) }
            return number
        }
    }

    package func boolean() throws(ConfigurationFault) -> Bool {
        switch value {
        case .text(let text):
            switch text.lowercased() {
            case "true", "1", "yes", "on": return true
            case "false", "0", "no", "off": return false
            default: throw fault("\(Self.quoted(text)) is not valid", fix: "write true or false")
            }
        case .toml(let value):
            guard case .boolean(let flag) = value.kind else { throw wrongType(value, "true or false") }
            return flag
        }
    }

    /// One string, or an array of them; each keeps its own place.
    package func strings(_ expected: String) throws(ConfigurationFault) -> [Setting] {
        guard case .toml(let value) = value, case .array(let elements) = value.kind else {
            _ = try string("\(expected), or an array of them")
            return [self]
        }
        var result: [Setting] = []
        for element in elements {
            guard case .string = element.kind else { throw at(element).wrongType(element, "a string: \(expected)") }
            result.append(at(element))
        }
        return result
    }

    package func listenAddress() throws(ConfigurationFault) -> SocketEndpoint {
        let text = try string("IP:PORT")
        if text.hasPrefix(":"), let endpoint = SocketEndpoint("[::]\(text)") { return endpoint }
        guard let endpoint = SocketEndpoint(text) else {
            throw fault("\(Self.quoted(text)) is not an address to listen on", fix: "write IP:PORT, such as [::]:443 or 127.0.0.1:8443")
        }
        return endpoint
    }

    private func at(_ element: TOMLValue) -> Setting {
        var origin = origin
        if let file { origin = .file(file, element.position) }
        return Setting(value: .toml(element), origin: origin, key: key)
    }

    private func wrongType(_ value: TOMLValue, _ expected: String) -> ConfigurationFault {
        fault("\(value.typeName) is given", fix: "write \(expected)")
    }

    /// The text in quotes, escaped; kept out of the message if it could be a key.
    static func quoted(_ text: String) -> String {
        let keyLike = text.utf8.count >= 40 && text.utf8.filter { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: ":") }.isEmpty
        return keyLike ? "the value" : "\"\(LogText.escape(text, limit: 120))\""
    }
}
