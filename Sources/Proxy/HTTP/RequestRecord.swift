import NIOCore

/// What the access log tells of one request. Never fields of the request or its query: they carry passwords, cookies and tokens.
package struct RequestRecord: Sendable {
    /// When its head was complete, in seconds and nanoseconds since 1970.
    package var time: (seconds: Int, nanoseconds: Int)
    package var id: String
    /// The client's address.
    package var client: String
    package var host: String
    package var method: String
    /// With or without its query, which is not written.
    package var path: String
    /// 0 if nothing was answered.
    package var status: Int
    /// Bytes of the request's body.
    package var bytesIn: Int
    /// Bytes of the response's body.
    package var bytesOut: Int
    /// How long it waited for a connection to the agent.
    package var connect: TimeAmount?
    /// From its head to that of the response.
    package var head: TimeAmount?
    package var total: TimeAmount
    /// The agent's address; empty without a route.
    package var agent: String
    /// The configured domain; empty without a route.
    package var route: String
    /// "http/1.1", "h2".
    package var protocolName: String
    /// "1.2", "1.3".
    package var tlsVersion: String?
    /// Why it failed, in a few words.
    package var error: String?

    package init(
        id: String, client: String, host: String = "", method: String = "", path: String = "", status: Int = 0, bytesIn: Int = 0,
        bytesOut: Int = 0, connect: TimeAmount? = nil, head: TimeAmount? = nil, total: TimeAmount = .zero, agent: String = "",
        route: String = "", protocolName: String = "http/1.1", tlsVersion: String? = nil, error: String? = nil,
        time: (seconds: Int, nanoseconds: Int)? = nil
    ) {
        self.time = time ?? Timestamp.now()
        self.id = id
        self.client = client
        self.host = host
        self.method = method
        self.path = path
        self.status = status
        self.bytesIn = bytesIn
        self.bytesOut = bytesOut
        self.connect = connect
        self.head = head
        self.total = total
        self.agent = agent
        self.route = route
        self.protocolName = protocolName
        self.tlsVersion = tlsVersion
        self.error = error
    }

    /// About the memory that it takes.
    var size: Int {
        let texts = id.utf8.count + client.utf8.count + host.utf8.count + method.utf8.count + path.utf8.count + agent.utf8.count
        return texts + route.utf8.count + (error?.utf8.count ?? 0) + 256
    }
}

/// Makes lines of records: one JSON object each.
struct RequestRecordWriter {
    private(set) var bytes: [UInt8] = []
    /// The last second, as it is written.
    private var second = (number: Int.min, text: [UInt8]())

    /// - Parameter dropped: records that are missing in front of this one.
    mutating func append(_ record: RequestRecord, dropped: UInt64 = 0) {
        append(#"{"time":""#)
        append(record.time)
        text(#"","id":"#, record.id)
        text(#","client":"#, record.client)
        text(#","host":"#, record.host)
        text(#","method":"#, record.method)
        text(#","path":"#, record.path.utf8.firstIndex(of: UInt8(ascii: "?")).map { String(record.path[..<$0]) } ?? record.path)
        append(#","status":"#)
        append("\(record.status)")
        append(#","bytesIn":"#)
        append("\(record.bytesIn)")
        append(#","bytesOut":"#)
        append("\(record.bytesOut)")
        if let connect = record.connect { milliseconds(#","connectMs":"#, connect) }
        if let head = record.head { milliseconds(#","headMs":"#, head) }
        milliseconds(#","totalMs":"#, record.total)
        if !record.route.isEmpty { text(#","route":"#, record.route) }
        if !record.agent.isEmpty { text(#","agent":"#, record.agent) }
        text(#","protocol":"#, record.protocolName)
        if let version = record.tlsVersion { text(#","tls":"#, version) }
        if let error = record.error { text(#","error":"#, error) }
        if dropped > 0 {
            append(#","dropped":"#)
            append("\(dropped)")
        }
        append("}\n")
    }

    /// Behind what was written in part.
    mutating func endLine() { append("\n") }

    mutating func removeAll() { bytes.removeAll(keepingCapacity: true) }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func append(_ time: (seconds: Int, nanoseconds: Int)) {
        if time.seconds != second.number { second = (time.seconds, Array(Timestamp.text((time.seconds, 0)).utf8.dropLast(5))) }
        bytes.append(contentsOf: second.text)
        thousandths(time.nanoseconds / 1_000_000)
        append("Z")
    }

    private mutating func milliseconds(_ key: String, _ amount: TimeAmount) {
        let microseconds = max(0, amount.nanoseconds / 1000)
        append(key)
        append("\(microseconds / 1000)")
        thousandths(Int(microseconds % 1000))
    }

    /// `.007` of 7.
    private mutating func thousandths(_ number: Int) {
        bytes.append(UInt8(ascii: "."))
        for digit in [number / 100, number / 10 % 10, number % 10] { bytes.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: digit)) }
    }

    private mutating func text(_ key: String, _ value: String) {
        append(key)
        let isPlain =
            value.utf8.count < LogText.limit
            && value.utf8.allSatisfy { (0x20..<0x7F).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
        guard isPlain else { return append(JSONText.quoted(value)) }
        bytes.append(UInt8(ascii: "\""))
        append(value)
        bytes.append(UInt8(ascii: "\""))
    }
}
