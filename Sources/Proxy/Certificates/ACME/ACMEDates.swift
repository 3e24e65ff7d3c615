import FoundationEssentials

/// The two forms in which a CA writes moments. Anything else is nil.
package enum ACMEDates {
    /// `2026-11-26T11:32:00Z`, with a fraction and any offset.
    ///
    /// Source: RFC 3339 §5.6.
    package static func parseTimestamp(_ text: some StringProtocol) -> Date? {
        var reader = Reader(text)
        guard let year = reader.number(4), reader.take("-"), let month = reader.number(2), reader.take("-"),
            let day = reader.number(2), reader.take("T") || reader.take("t"), let time = reader.time()
        else { return nil }
        var fraction = 0.0
        if reader.take(".") {
            var scale = 0.1
            guard let first = reader.number(1) else { return nil }
            fraction = Double(first) * scale
            while let digit = reader.number(1) {
                scale /= 10
                fraction += Double(digit) * scale
            }
        }
        var offset = 0
        if !reader.take("Z") && !reader.take("z") {
            let isEast = reader.take("+")
            guard isEast || reader.take("-"), let hours = reader.number(2), reader.take(":"), let minutes = reader.number(2),
                hours < 24, minutes < 60
            else { return nil }
            offset = (hours * 60 + minutes) * (isEast ? 60 : -60)
        }
        guard reader.isAtEnd, let days = days(year, month, day) else { return nil }
        return Date(timeIntervalSince1970: Double(days * 86_400 + time - offset) + fraction)
    }

    /// `Thu, 26 Nov 2026 11:32:00 GMT`; the obsolete forms are not taken.
    ///
    /// Source: RFC 9110 §5.6.7, IMF-fixdate.
    package static func parseHTTP(_ text: some StringProtocol) -> Date? {
        guard let comma = text.firstIndex(of: ","), ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(text[..<comma]) else {
            return nil
        }
        var reader = Reader(text[comma...].dropFirst())
        guard reader.take(" "), let day = reader.number(2), reader.take(" ") else { return nil }
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard let month = names.firstIndex(where: { reader.take($0) }), reader.take(" "), let year = reader.number(4), reader.take(" "),
            let time = reader.time(), reader.take(" GMT"), reader.isAtEnd, let days = days(year, month + 1, day)
        else { return nil }
        return Date(timeIntervalSince1970: Double(days * 86_400 + time))
    }

    /// `Retry-After`: seconds from now, or a date. Never in the past, and never further ahead than `longestRetry`.
    ///
    /// Source: RFC 9110 §10.2.3.
    package static func retryAfter(_ text: String?, now: Date) -> Date? {
        guard let text else { return nil }
        let date: Date? =
            if !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) {
                now + (Double(text) ?? longestRetry)
            } else {
                parseHTTP(text)
            }
        return date.map { min(max($0, now), now + longestRetry) }
    }

    /// The longest window of a rate limit that is known is a week.
    package static let longestRetry: TimeInterval = 8 * 86_400

    /// Days since 1970-01-01 in the Gregorian calendar; years are counted from March, so that the odd day is the last.
    private static func days(_ year: Int, _ month: Int, _ day: Int) -> Int? {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        let lengths = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        guard (1...12).contains(month), (1...lengths[month - 1]).contains(day) else { return nil }
        let years = month > 2 ? year : year - 1
        let monthFromMarch = (month + 9) % 12
        return years * 365 + years / 4 - years / 100 + years / 400 + (monthFromMarch * 153 + 2) / 5 + day - 1 - 719_468
    }

    private struct Reader {
        private var rest: Substring.UTF8View

        init(_ text: some StringProtocol) { rest = Substring(text.prefix(64)).utf8 }

        var isAtEnd: Bool { rest.isEmpty }

        mutating func number(_ digits: Int) -> Int? {
            guard rest.count >= digits, rest.prefix(digits).allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            defer { rest = rest.dropFirst(digits) }
            return rest.prefix(digits).reduce(0) { $0 * 10 + Int($1 - 0x30) }
        }

        mutating func take(_ text: String) -> Bool {
            guard rest.starts(with: text.utf8) else { return false }
            rest = rest.dropFirst(text.utf8.count)
            return true
        }

        /// Seconds since midnight; a leap second is the next minute's first.
        mutating func time() -> Int? {
            guard let hour = number(2), take(":"), let minute = number(2), take(":"), let second = number(2), hour < 24, minute < 60,
                second <= 60
            else { return nil }
            return hour * 3_600 + minute * 60 + second
        }
    }
}
