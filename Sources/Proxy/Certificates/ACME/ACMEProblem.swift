import FoundationEssentials

/// What a CA says went wrong. All texts are escaped and cut as they are read.
///
/// Source: RFC 8555 §6.7, RFC 9457 §3.
package struct ACMEProblem: Equatable, Sendable, CustomStringConvertible {
    /// Without `urn:ietf:params:acme:error:`.
    package var type: String
    package var detail: String
    /// The HTTP status of the answer that had it, or its own member; 0 if there is neither.
    package var status: Int
    /// What a subproblem is about.
    package var identifier: String?
    /// RFC 8555 §6.7.1.
    package var subproblems: [ACMEProblem]

    package init(type: String, detail: String = "", status: Int = 0, identifier: String? = nil, subproblems: [ACMEProblem] = []) {
        self.type = Self.clean(type)
        self.detail = Self.clean(detail)
        self.status = status
        self.identifier = identifier.map(Self.clean)
        self.subproblems = subproblems
    }

    /// Whatever the body is, an answer that is a failure gives a problem.
    package init(_ response: ACMEResponse) {
        if let read: ACMEProblem = try? ACMEJSON.read(response.body) {
            self = read
        } else {
            self.init(type: "about:blank", detail: String(decoding: response.body.prefix(ACMEFault.limit), as: UTF8.self))
        }
        status = response.status
    }

    package var description: String {
        var text = identifier.map { "\($0): " } ?? ""
        text += type == "about:blank" && status > 0 ? "HTTP \(status)" : type
        if !detail.isEmpty { text += " (\(detail))" }
        if !subproblems.isEmpty { text += " [" + subproblems.map(\.description).joined(separator: "; ") + "]" }
        return text
    }

    /// Whether it, or all that it consists of, is of this type.
    package func isKind(_ type: String) -> Bool {
        self.type == type || (self.type == "compound" && !subproblems.isEmpty && subproblems.allSatisfy { $0.type == type })
    }

    private static func clean(_ text: String) -> String { LogText.escape(text, limit: ACMEFault.limit) }

    static let namespace = "urn:ietf:params:acme:error:"
    /// The rest is cut off.
    static let maximumSubproblems = 16
}

extension ACMEProblem: Decodable {
    private enum Key: String, CodingKey { case type, detail, title, status, identifier, subproblems }

    /// Members of a wrong type are as good as absent: a problem must never hide behind its own form.
    package init(from decoder: any Decoder) throws {
        try self.init(from: decoder, allowsSubproblems: true)
    }

    private init(from decoder: any Decoder, allowsSubproblems: Bool) throws {
        let values = try decoder.container(keyedBy: Key.self)
        func text(_ key: Key) -> String? { try? values.decode(String.self, forKey: key) }
        var type = text(.type) ?? "about:blank"
        if type.hasPrefix(Self.namespace) { type.removeFirst(Self.namespace.count) }
        var subproblems: [ACMEProblem] = []
        if allowsSubproblems, var list = try? values.nestedUnkeyedContainer(forKey: .subproblems) {
            while !list.isAtEnd, subproblems.count < Self.maximumSubproblems {
                guard let element = try? list.superDecoder(), let problem = try? ACMEProblem(from: element, allowsSubproblems: false)
                else { break }
                subproblems.append(problem)
            }
        }
        self.init(
            type: type, detail: text(.detail) ?? text(.title) ?? "",
            status: (try? values.decode(ExactInteger.self, forKey: .status))?.wrappedValue ?? 0,
            identifier: (try? values.decode(ACMEIdentifier.self, forKey: .identifier))?.value, subproblems: subproblems)
    }
}
